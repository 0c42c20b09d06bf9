"""What `rq-lite` says of itself, and of a command that is none."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from rq_lite.cli import COMMANDS, cli
from rq_lite.cli.common import setting_options


def said(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli, words, prog_name="rq-lite", terminal_width=78)  # of 80
    assert result.exit_code == code, result.output
    return result.output


def paths() -> list[tuple[str, ...]]:
    """Every command and subcommand."""
    found: list[tuple[str, ...]] = [()]
    for name in COMMANDS:
        found.append((name,))
        command = cli.get_command(click.Context(cli), name)
        found += [(name, sub) for sub in getattr(command, "commands", ())]
    return found


@pytest.mark.parametrize("path", paths(), ids=" ".join)
def test_help_is_there_by_both_names_and_nothing_is_cut_off(path: tuple[str, ...]) -> None:
    text = said(*path, "--help")
    assert said(*path, "-h") == text
    assert [line for line in text.partition("Commands:")[2].splitlines() if line.endswith("...")] == []


def test_every_setting_that_a_command_has_as_an_option_has_a_help() -> None:
    @click.command()
    @setting_options("greenlets", "grace", "max_jobs")
    def command() -> None: ...

    text = CliRunner().invoke(command, ["--help"], terminal_width=78).output
    assert "--greenlets INTEGER  Jobs at a time in each. Default: 200." in text
    assert "--grace SECONDS" in text
    with pytest.raises(AssertionError, match="lease"):
        setting_options("lease")


def test_a_command_that_is_none_is_told_what_may_be_meant() -> None:
    assert "No such command 'wrk'. Did you mean 'work'?" in said("wrk", code=2)
    assert "No such command 'frobnicate'." in said("frobnicate", code=2)
    assert "Did you mean" not in said("frobnicate", code=2)
