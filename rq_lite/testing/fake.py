"""A Redis within this process, which this process's queues then use: it needs no server.

fakeredis runs the same scripts. docs/testing.md lists what that does not prove; therefore nothing uses it by itself
if a server is missing: a test asks for it by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import msgspec

from rq_lite.broker import Broker
from rq_lite.client.defaults import defaults
from rq_lite.errors import UsageError
from rq_lite.settings import checked
from rq_lite.testing.isolation import WAIT, pointed_to


@contextmanager
def fake(**settings: Any) -> Iterator[Broker]:
    """Make the default Redis an empty one within this process, for the time of the block.

    Otherwise like `isolated`: also for processes that this one starts, by RQ_LITE_URL, and with all settings of
    docs/settings.md except `url`. Yields the broker. Raises UsageError, also if fakeredis is not installed.
    """
    if "url" in settings:
        raise UsageError(
            "fake() makes a Redis of its own, url cannot be chosen; "
            "for an existing Redis set RQ_LITE_URL, or use Queue(…, broker=Broker(url))"
        )
    chosen = checked(settings, "the arguments", strict=False)
    with closing(new_server()) as server:
        wanted = {"wait": WAIT, **chosen, "url": server.url}
        with (
            closing(Broker(settings=msgspec.structs.replace(defaults.settings, **wanted), quiet=True)) as broker,
            pointed_to(broker, **chosen),
        ):
            yield broker


def new_server() -> Any:
    """A `Server` of fake_server.py, imported only here: fakeredis takes as long to import as all of rq_lite."""
    try:
        return importlib.import_module("rq_lite.testing.fake_server").Server()
    except ImportError as error:
        raise UsageError(f"fake() needs fakeredis ({error}): pip install 'fakeredis[lua]'") from None
