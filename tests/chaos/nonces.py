"""Greenlets that are killed in the middle of their calls to Redis, for T7: `python -m tests.chaos.nonces CALLS SEED`.

Each asks for a value that only it knows, over links that all of them share. Prints one JSON object: `calls`, `killed`,
`timed_out`, `foreign` (answers to another greenlet's request), `free` (how many of all `greenlets` were served at the
end), `heir`.
"""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import random  # noqa: E402
import sys  # noqa: E402
from collections import Counter  # noqa: E402

import gevent  # noqa: E402

from rq_lite.broker import Broker, Link  # noqa: E402
from rq_lite.broker.link import Links  # noqa: E402

TOLD = ("calls", "killed", "timed_out", "foreign", "free", "greenlets", "heir")
GREENLETS = 60
LINKS = 8  # fewer than callers: some wait for one

count: Counter[str] = Counter()


class Caller:
    """One greenlet after the other, each running until it is killed."""

    def __init__(self, broker: Broker, number: int, chance: random.Random) -> None:
        self._broker = broker
        self._number = number
        self._chance = chance
        self._link: Link = broker.link()
        self._nonce = 0

    def live(self) -> None:
        while True:
            self._nonce += 1
            nonce = f"{self._number}-{self._nonce}".encode()
            # Often longer than a call takes, often shorter.
            timeout = gevent.Timeout.start_new(self._chance.expovariate(1 / 0.005))
            try:
                self._ask(nonce)
            except gevent.Timeout as caught:
                if caught is not timeout:
                    raise
                count["timed_out"] += 1
            finally:
                timeout.close()
                count["calls"] += 1

    def _ask(self, nonce: bytes) -> None:
        way = self._chance.randrange(4)
        if way == 0:
            answers = [self._link.call("ECHO", nonce)]
        elif way == 1:
            answers = self._link.pipe([("ECHO", nonce)] * 3)
        elif way == 2:
            key = f"nonce:{self._number}"
            answers = self._broker.read(("SET", key, nonce, "GET"), ("GET", key), ("ECHO", nonce))[1:]
        else:
            # A wait that ends empty: a late reply to it must not answer the next request.
            self._link.call("BRPOP", b"never:" + nonce, 0.01)
            answers = [self._link.call("ECHO", nonce)]
        count["foreign"] += any(answer != nonce for answer in answers)


def heir(broker: Broker) -> bool:
    """Whether the second greenlet in line gets a link if the first is killed just when the link is given back."""
    links = Links(broker.core.address, most=1)
    link = links.borrow()
    first, second = gevent.spawn(links.borrow), gevent.spawn(links.borrow)
    gevent.sleep(0.01)
    first.kill(block=False)
    links.give_back(link)
    second.join(timeout=5)
    return second.value is link


def main(calls: int, seed: int) -> None:
    chance = random.Random(seed)
    broker = Broker().open()
    broker.core.links = Links(broker.core.address, most=LINKS)
    callers = [Caller(broker, number, random.Random(chance.random())) for number in range(GREENLETS)]
    alive = [gevent.spawn(caller.live) for caller in callers]
    while count["calls"] < calls:
        gevent.sleep(chance.expovariate(1 / 0.002))
        victim = chance.randrange(GREENLETS)
        alive[victim].kill()
        count["killed"] += 1
        alive[victim] = gevent.spawn(callers[victim].live)
    gevent.killall(alive)
    # No link was lost: all can still be borrowed, and no greenlet waits for a free one.
    last = [gevent.spawn(broker.read, ("PING",)) for _ in range(GREENLETS)]
    gevent.joinall(last, timeout=20)
    count["free"] = sum(one.value == [b"PONG"] for one in last)
    count["greenlets"] = GREENLETS
    count["heir"] = heir(broker)
    broker.read(("FLUSHALL",))
    print(
        json.dumps(
            {name: count[name] for name in ("calls", "killed", "timed_out", "foreign", "free", "greenlets", "heir")}
        )
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
