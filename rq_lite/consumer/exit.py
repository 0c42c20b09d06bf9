"""How a consumer ends: here and now."""

from __future__ import annotations

import logging
import os
from typing import NoReturn

import gevent

from rq_lite.process.streams import flush

log = logging.getLogger("rq_lite.consumer")


def hard_exit(code: int) -> NoReturn:
    """End the process: what runs on in threads must not run on after its job was given back."""
    logging.shutdown()
    flush()
    os._exit(code)


def critical(greenlet: gevent.Greenlet) -> gevent.Greenlet:
    """Without this greenlet the consumer would live on and be of no use: when it fails the process ends.

    Its jobs are reclaimed then, which beats a job that is in flight for ever because a slot was lost.
    """

    def end(_: gevent.Greenlet) -> None:
        log.error("a fault of the consumer itself: it ends, its jobs run again")
        hard_exit(1)

    greenlet.link_exception(end)
    return greenlet
