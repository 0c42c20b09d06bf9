"""T5: replies of every kind are lost, of scripts that Redis has done.

The short form of windows of lost replies to puts: tests/acceptance/test_transient.py.
"""

from __future__ import annotations

from collections import Counter

from rq_lite.broker import scripts
from tests.acceptance.conftest import Lab
from tests.acceptance.flow import put_through_lost_replies, until_counted
from tests.chaos.conftest import Tell
from tests.conftest import until
from tests.faults.proxy import Proxy

JOBS, FAILING, STRANGE = 60, 5, 4
# In the order in which a worker needs them first. `put` and `give_back` have tests of their own; the others are
# operators', and safe to repeat.
AT_START = ("declare", "register")
AT_WORK = ("exchange", "retry", "finish", "park", "promote", "renew", "announce")
OF_CRASHES = ("reclaim", "isolate")


def digest(lab: Lab, name: str) -> str:
    """What only calls of this script have in them, once Redis knows it."""
    script = scripts.load(flags=lab.broker.core.version >= (7, 0))[name]
    lab.broker.read(("SCRIPT", "LOAD", script.text))
    return script.digest


def test_a_lost_reply_to_any_script_changes_nothing(lab: Lab, proxy: Proxy, long: bool, tell: Tell) -> None:
    """Jobs that are done, retried, buried, parked: all end as if nothing had happened."""
    lab.environment["RQ_LITE_PARK"] = "600"
    needles = {name: digest(lab, name) for name in (*AT_START, *AT_WORK, *OF_CRASHES)}
    lost = rounds = 0

    def lose(name: str) -> None:
        nonlocal lost
        proxy.swallow_replies(needles[name])
        if name not in AT_START:
            put_some()
        lost += 1
        until_counted(proxy, "swallowed", lost)
        proxy.calm()

    def put_some() -> None:
        nonlocal rounds
        lab.put("number", *range(JOBS * rounds, JOBS * (rounds + 1)))
        lab.put("fail", *range(FAILING), retries=1, timeout=30)
        lab.put("do", *range(STRANGE), app="no.such.app")
        rounds += 1

    proxy.swallow_replies(needles["declare"])
    worker = lab.work("--greenlets", "20", "--url", proxy.url)
    for name in (*AT_START, *AT_WORK * (10 if long else 1)):
        lose(name)
    ended(lab, rounds)
    done = Counter(lab.seen("done"))
    assert done == Counter(map(str, range(JOBS * rounds)))
    assert Counter(lab.seen("begun")) == {f"{n}": 2 * rounds for n in range(FAILING)}
    assert (lab.state().retried, lab.state().stale) == (FAILING * rounds, 0)
    tell(f"T5 {lost} lost replies to {len(AT_START + AT_WORK)} scripts: {lab.state().put:,} jobs, 0 lost, 0 twice")
    for number, name in enumerate(OF_CRASHES * (5 if long else 1), 1):
        lab.put("poison", "kill")
        lose(name)
        ended(lab, rounds, poisons=number)
    assert worker.stop() == 0
    # What ran as its consumer was killed may have run twice.
    assert set(lab.seen("done")) == {*map(str, range(JOBS * rounds))}
    assert (lab.state().inflight, lab.state().suspects, lab.state().stale) == (0, 0, 0)


def ended(lab: Lab, rounds: int, poisons: int = 0) -> None:
    parked = STRANGE * rounds
    until(lambda: lab.broker.tends.unfinished("work") == (parked, parked), "all but the parked are done")
    assert (lab.state().done, lab.state().failed) == (JOBS * rounds, FAILING * rounds + poisons)


def test_a_lost_reply_to_a_give_back_changes_nothing(lab: Lab, proxy: Proxy) -> None:
    lab.put("last", *range(5))
    needle = digest(lab, "give_back")
    worker = lab.work("--greenlets", "5", "--grace", "0", "--url", proxy.url)
    lab.until_seen("begun", 5)
    with proxy.swallow_replies(needle):
        assert worker.stop() == 0
        assert proxy.counters.swallowed == 1
    assert lab.arguments() == list(range(5))
    assert (lab.state().inflight, lab.state().consumers) == (0, 0)


def test_puts_through_windows_of_lost_replies(lab: Lab, proxy: Proxy, long: bool, tell: Tell) -> None:
    windows, apart = (100, 50) if long else (5, 30)
    put = put_through_lost_replies(lab, proxy, windows, apart, "--batch", "1", "--rate", f"{10 * apart}/s")
    assert lab.arguments() == list(range(put))
    tell(f"T5 {put:,} puts, {windows} windows, {proxy.counters.swallowed} lost replies: 0 lost, 0 twice, in order")
