"""Text and times as tables and lines show them."""

from __future__ import annotations

import json

import msgspec

from rq_lite.logs import one_line

LONGEST = 60  # characters of a name that are shown


def plain(text: str, longest: int = LONGEST) -> str:
    """Text from elsewhere for a table: escaped, and not too long.

    Each such text is put into a rich Text, in which rich reads no markup.
    """
    return one_line(text, longest)


def json_line(value: object) -> str:
    """One line of JSON for --json, in ASCII: nothing in it can change a terminal, whatever its encoding.

    Not msgspec's, which refuses the name of a file that is not UTF-8.
    """
    return json.dumps(msgspec.to_builtins(value), separators=(",", ":")).replace("\x7f", "\\u007f")


def span(seconds: float) -> str:
    """Roughly how long: `42 s`, `7 min`, `3 h`, `5 d`."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:,.0f} {unit}"
    return f"{seconds:.0f} s"


def runs(attempts: int, crashes: int, deaths: int) -> str:
    """A job's attempts, crashes and deaths of its worker among them: `3: 2 failed, 1 crashed (the process died)`."""
    failed = attempts - crashes - deaths
    parts = [f"{failed:,} failed"] * (failed > 0)
    parts += [f"{crashes:,} crashed (the process died)"] * (crashes > 0)
    parts += [f"{deaths:,} ended with their whole worker"] * (deaths > 0)
    count = f"{attempts:,}: " if len(parts) > 1 else ""
    return count + (", ".join(parts) or "none has failed or crashed")
