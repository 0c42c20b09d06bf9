"""For the chaos tests: the lab of the acceptance tests, and how to tell what was measured."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.acceptance.conftest import ctrl_c, environment, lab, lab_at, private, server

__all__ = ["ctrl_c", "environment", "lab", "lab_at", "private", "server"]

Tell = Callable[[str], None]


@pytest.fixture
def tell(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None], long: bool
) -> Callable[[str], None]:
    """Tells the figures of a test in one line, which `make chaos` shows; else `pytest -rP` does."""
    capture = request.getfixturevalue("capsys")

    def say(figures: str) -> None:
        record_property("figures", figures)
        if long:
            with capture.disabled():
                print(f"\n    {figures}", flush=True)
        else:
            print(figures)

    return say
