"""Errors of Redis: which of them are transient, and each in words for people."""

from __future__ import annotations

import re

import redis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
)

from rq_lite.broker.address import Address
from rq_lite.errors import BrokerError, BrokerOutOfMemory, BrokerUnavailable

# Replies that say "not now": Redis is loading, busy, failing over, or has just been demoted. For some of them redis-py
# has a class, and removes their first word; Redis 6.2 puts a script's error inside a text about the script.
PASSING = (ReadOnlyError, MasterDownError, ClusterDownError, TryAgainError)


TRANSIENT = re.compile(
    r"(Error running script .*-)?"
    r"(LOADING|READONLY|UNBLOCKED|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|MISCONF|BUSY)\b"
)


UNWRITTEN = re.compile(r"(Error running script .*-)?MISCONF\b")
DISK = (
    "cannot write to its disk (is it full?) and refuses every write, takes as well as puts; free space there, and all "
    "go on"
)


LOST = (redis.ConnectionError, redis.TimeoutError, OSError)


ANSWERS = (AuthenticationError, AuthorizationError, BusyLoadingError)  # though redis-py counts them among LOST


def is_transient(error: BaseException) -> bool:
    """Whether the same call may well succeed a little later."""
    if isinstance(error, (AuthenticationError, AuthorizationError)):
        return False
    if isinstance(error, (*LOST, *PASSING)):
        return True
    return isinstance(error, redis.ResponseError) and TRANSIENT.match(str(error)) is not None


def is_lost(error: BaseException) -> bool:
    """Whether no answer came. redis-py raises connection errors for some answers, too."""
    return isinstance(error, LOST) and not isinstance(error, ANSWERS)


def in_words(text: str) -> str:
    """An error's text, with its cause and the way out where Redis' own words name neither."""
    return f"it {DISK}: {text}" if UNWRITTEN.match(text) else text


def explained(error: BaseException, address: Address, *, unknown: bool = False) -> BrokerError:
    """The error in one line, for people: what is wrong with this Redis, without the password.

    `unknown`: an earlier request may have been done though no answer came; an error in reply to a later one does not
    settle that.
    """
    text = address.veiled(str(error)).split("\n", 1)[0]
    where = f"Redis at {address.shown}"
    outcome = "unknown" if unknown else "not done"
    if isinstance(error, (AuthenticationError, AuthorizationError)) or text.startswith(("NOAUTH", "WRONGPASS")):
        alone = re.match(r"[\w+]+://[^:@/]+@", address.url)
        way_out = "; a password alone is written redis://:PASSWORD@host" if alone else ""
        return BrokerUnavailable(f"{where} refuses the user name or password: {text}{way_out}", outcome=outcome)
    if is_lost(error):
        return BrokerUnavailable(f"{where} cannot be reached: {text or type(error).__name__}", outcome=outcome)
    if UNWRITTEN.match(text):
        return BrokerUnavailable(f"{where} {DISK}: {text}", outcome=outcome)
    if unknown or is_transient(error):
        return BrokerUnavailable(f"{where} answers: {text}", outcome=outcome)
    # redis-py has a class for it, but not for that of a script on Redis 6.2: there it is in the text.
    if isinstance(error, OutOfMemoryError) or "OOM command not allowed" in text:
        return BrokerOutOfMemory(
            f"{where} is at its maxmemory and stores nothing more; nothing more was put. "
            "Consumers go on: let them drain the queue, or raise maxmemory"
        )
    return BrokerError(f"{where} answers: {text}")


# What a call over a link may raise.
REDIS_ERRORS = (redis.RedisError, OSError)
