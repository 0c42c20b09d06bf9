"""Ends a consumer process at once."""

from __future__ import annotations

import logging
import os
from typing import NoReturn

import gevent

from rq_lite.logs import logger
from rq_lite.process.streams import flush

log = logger("rq_lite.consumer")


def hard_exit(code: int) -> NoReturn:
    """End the process at once: its threads must not go on with jobs that were given back."""
    logging.shutdown()
    flush()
    os._exit(code)


def critical(greenlet: gevent.Greenlet) -> gevent.Greenlet:
    """End the process if this greenlet fails: without it the consumer would live on uselessly.

    Its jobs are then reclaimed, which is better than a job that stays in flight for ever because its slot was lost.
    """

    def end(_: gevent.Greenlet) -> None:
        log.error("internal error in this consumer; it exits and its jobs will be reclaimed")
        hard_exit(1)

    greenlet.link_exception(end)
    return greenlet
