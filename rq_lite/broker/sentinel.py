"""Where the primary is now, according to Redis Sentinel, which is asked for each new connection.

    redis+sentinel://[user:password@]host[:26379][,host2[:port] …]/service[/db][?options]

`rediss+sentinel://` speaks TLS, with the sentinels too. Options are those of a redis:// URL, and `sentinel_username`
and `sentinel_password`, if the sentinels require them. Each sentinel is asked over a connection of its own that is then
closed: nothing is shared between threads, greenlets or processes. The steps are those of Redis' own guidelines for
clients of Sentinel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import redis

from rq_lite.redis_url import SENTINEL_SCHEMES

PORT = 26379
ANSWER = 1.0  # seconds that a sentinel has to answer; then the next is asked

Make = Callable[..., Any]  # from a redis:// URL (and options of redis-py's connections): a pool that makes connections


class Sentinels:
    """The sentinels of a URL without a flaw."""

    def __init__(self, url: str, make: Make) -> None:
        parts = urlsplit(url)
        self._scheme = SENTINEL_SCHEMES[parts.scheme]
        credentials, at, hosts = parts.netloc.rpartition("@")
        self.service, _, db = parts.path.strip("/").partition("/")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        own = [options.pop(f"sentinel_{what}", "") for what in ("username", "password")]
        query = f"?{urlencode(options)}" if options else ""
        self._sentinels = [self._maker(host, own, query, make) for host in hosts.split(",")]
        # Makes connections to the primary; its host and port are filled in for each.
        self.primaries = make(f"{self._scheme}://{credentials}{at}primary:1/{db}{query}")

    def _maker(self, host: str, own: list[str], query: str, make: Make) -> Any:
        credentials = f"{quote(own[0], '')}:{quote(own[1], '')}@" if any(own) else ""
        where = host if urlsplit(f"//{host}").port else f"{host}:{PORT}"
        return make(
            f"{self._scheme}://{credentials}{where}/{query}", socket_timeout=ANSWER, socket_connect_timeout=ANSWER
        )

    def connect(self, connection: Any) -> None:
        """Open a connection to the current primary. Raises redis-py's errors."""
        connection.host, connection.port = self._primary()
        connection.connect()
        try:
            connection.send_command("ROLE")
            role = connection.read_response()[0]
        except redis.ResponseError:  # not allowed to ask
            return
        if role != b"master":
            connection.disconnect()
            raise redis.ConnectionError(f"{connection.host}:{connection.port} is not (or no longer) a primary")

    def _primary(self) -> tuple[str, int]:
        said = []
        for pool in list(self._sentinels):
            sentinel = pool.make_connection()
            try:
                sentinel.connect()
                sentinel.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
                found = sentinel.read_response()
            except (redis.RedisError, OSError) as error:
                said.append(str(error))
                continue
            finally:
                sentinel.disconnect()
            if found:
                # This sentinel is asked first the next time.
                self._sentinels = sorted(self._sentinels, key=lambda one: one is not pool)
                return found[0].decode(), int(found[1])
            said.append(f"{sentinel.host}:{sentinel.port} knows no service {self.service!r}")
        raise redis.ConnectionError(f"no sentinel says where the primary is: {'; '.join(said)}")
