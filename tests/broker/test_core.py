"""What the sides of the broker share."""

from __future__ import annotations

import gc
import weakref

from tests.conftest import Server


def test_a_broker_that_is_dropped_is_freed_at_once(server: Server) -> None:
    broker = server.broker()
    assert broker.core.clock.now(broker.core.read) > 1.7e12
    core = weakref.ref(broker.core)
    broker.close()
    gc.disable()  # a circle would keep its connections open until some later collection
    try:
        del broker
        assert core() is None
    finally:
        gc.enable()
