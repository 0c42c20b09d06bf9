"""Where Redis is, and how to connect to it."""

from __future__ import annotations

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from rq_lite.broker import tcp, url_options
from rq_lite.broker.sentinel import Sentinels
from rq_lite.errors import UsageError
from rq_lite.redis_url import SENTINEL_SCHEMES, flaw, redact, secrets_of

# Seconds without an answer after which a server counts as gone; a blocking pop waits less than that.
ANSWER = 5.0


CONNECT = 5.0
UNUSABLE = "the installed redis-py makes no connection of it"


class Address:
    """Where Redis is, and how to connect to it; shows itself without the password."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.shown = redact(url)
        self._secrets = secrets_of(url)
        self._sentinels: Sentinels | None = None
        # Raised outside any `except`: an error of redis-py or the standard library may hold the password, as a context.
        reason = flaw(url) or url_options.trouble_with(url) or self._prepare()
        if reason is not None:
            raise UsageError(f"Redis URL {self.shown!r}: {reason}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.shown!r})"

    def _prepare(self) -> str | None:
        """Get ready to make connections; returns the reason if that fails."""
        try:
            if self.url.partition("://")[0] in SENTINEL_SCHEMES:
                self._sentinels = Sentinels(self.url, made)
            self._factory = made(self.url) if self._sentinels is None else self._sentinels.primaries
            self._factory.make_connection()
        except (ValueError, TypeError, redis.RedisError):
            return UNUSABLE
        return None

    def veiled(self, text: str) -> str:
        """A text of Redis or redis-py without the passwords: some servers repeat what they were sent."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def connection(self) -> Any:
        """A new connection, not open yet."""
        return self._factory.make_connection()

    def connect(self, connection: Any) -> None:
        """Open it. Raises redis-py's errors."""
        if self._sentinels is None:
            connection.connect()
        else:
            self._sentinels.connect(connection)


def made(url: str, **options: Any) -> redis.ConnectionPool:
    """A pool of redis-py, used only to make connections; they send nothing twice by themselves.

    `options` and ours come before the URL's.
    """
    where, _, query = url.partition("?")
    parsed: dict[str, Any] = parse_url(where)  # type: ignore[no-untyped-call]
    usual = {"socket_timeout": ANSWER, "socket_connect_timeout": CONNECT}
    ours = {
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "driver_info": None,
        "max_connections": 2**31,  # redis-py's limit would be 100; `Links` sets ours
    }
    pool = redis.ConnectionPool(**usual | parsed | url_options.read(query) | ours | options)
    pool.connection_class = tcp.OURS.get(pool.connection_class, pool.connection_class)
    return pool
