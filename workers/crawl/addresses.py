"""To which addresses a host name leads, and which of them may be connected to.

A name may have a private address, and may have another one at the next look-up. So a name is looked up once, *all* its
addresses are checked, and `connections` connects to a checked address.

A name whose servers are silent occupies a thread and no other fetch.
"""

from __future__ import annotations

import _socket
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from functools import lru_cache
from typing import Any

from workers.crawl.limits import FetchError, Limits, time_left
from workers.crawl.urls import Url

LookUp = Callable[[str, float], Sequence[str]]  # takes a host and a limit in seconds, returns addresses

# The system's resolver waits up to 40 s for name servers that are silent, and cannot be interrupted. So it
# runs in a thread, once for all fetches that need the same name. (Under gevent these threads are greenlets, and
# gevent's own threads do the work: the consumer has more of them than usual.) Many silent names can occupy all
# threads; then further names wait, addresses do not.
LOOK_UPS = 500
RESOLVERS = futures.ThreadPoolExecutor(LOOK_UPS, "look-up")
ASKED: dict[str, tuple[float, futures.Future[Any]]] = {}  # by host: when the look-up began, and its answer
ASKING = threading.Lock()


def shared_look_up(host: str, within: float) -> Sequence[str]:
    """The addresses of a host, odd spellings included: to the system 2130706433 and 0177.1 are 127.0.0.1.

    They are cached for a minute; `addresses` checks them at each use. Raises FetchError.
    """
    try:
        # The system's own function, which does not block for an address; gevent's would use a thread.
        answers = _socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        answers = found_elsewhere(host, within)
    return tuple(dict.fromkeys(str(answer[4][0]) for answer in answers))


def found_elsewhere(host: str, within: float) -> Any:
    """What the system's resolver answers for a name. Raises FetchError."""
    until = time.monotonic() + within
    while True:
        answer = asked(host)
        try:
            return answer.result(max(0.0, until - time.monotonic()))
        except futures.TimeoutError as error:
            reason = "its name servers are silent"
            if answer.cancel():  # not begun yet: no fetch needs it now, and it would delay others
                reason = f"{LOOK_UPS} other names are being looked up"
            raise FetchError(f"{host}: no address found within {within:.2g} s, {reason}", "name") from error
        except futures.CancelledError:  # by an earlier fetch whose time was up
            continue
        except (OSError, UnicodeError) as error:
            raise FetchError(f"{host}: no address found ({error})", "name") from error


def asked(host: str) -> futures.Future[Any]:
    """The look-up of a host that is under way or at most a minute old, else a new one; failures are not kept."""
    with ASKING:
        now = time.monotonic()
        at, answer = ASKED.get(host, (now, None))
        if answer is None or (
            answer.done() and (now - at > 60 or answer.cancelled() or answer.exception() is not None)
        ):
            if len(ASKED) >= 10_000:
                ASKED.clear()
            answer = RESOLVERS.submit(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
            ASKED[host] = now, answer
        return answer


NAT64 = ipaddress.ip_network("64:ff9b::/96")


@lru_cache(10_000)
def is_public(address: str) -> bool:
    """Whether an IPv4 or IPv6 address belongs to the public Internet.

    A v6 address that carries a v4 one (mapped, 6to4, NAT64) is judged by the v4 one, where its packets end up.
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv4Address):
        return ip.is_global and not ip.is_multicast
    inner = ip.ipv4_mapped or ip.sixtofour
    if ip in NAT64:
        inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if inner is not None:
        return is_public(str(inner))
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_site_local)


def addresses(url: Url, limits: Limits, deadline: float, look_up: LookUp) -> Sequence[str]:
    """All addresses of the host. Raises FetchError if one of them is not public and that is not permitted."""
    found = look_up(url.host, min(limits.look_up, time_left(deadline)))
    for address in found:
        if not (limits.allow_private or is_public(address)):
            raise FetchError(
                f"{url.text}: {address} is not a public address; RQ_LITE_ALLOW_PRIVATE=1 permits such addresses",
                "address",
            )
    return found
