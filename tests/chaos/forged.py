"""Histories that no run has written, event by event."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from rq_lite.chaos.check import Verdict, check
from rq_lite.chaos.invariants import Demands

Q = "q"


class Forged:
    """A history as the processes of a run would have written it; each event is a second after the previous one."""

    def __init__(self) -> None:
        self.now = 0.0
        self.files: dict[str, list[dict[str, Any]]] = {}

    def say(self, file: str, at: str, **facts: Any) -> None:
        lines = self.files.setdefault(file, [{"t": self.now, "at": "process.begin", "role": "any", "pid": 1}])
        self.now += 1
        lines.append({"t": self.now, "w": self.now, "at": at, **facts})

    def put(self, *jobs: str, producer: str = "producer", accepted: int | None = None, **facts: Any) -> None:
        self.say(producer, "put.before", queue=Q, jobs=jobs)
        reply = {"size": 1, "maxsize": 0, "unbounded": False, **facts}
        self.say(producer, "put.after", queue=Q, jobs=jobs[:accepted], **reply)

    def put_fails(self, *jobs: str, outcome: str = "unknown") -> None:
        self.say("producer", "put.before", queue=Q, jobs=jobs)
        self.say("producer", "put.failed", queue=Q, jobs=jobs, outcome=outcome)

    def take(self, consumer: str, jobs: dict[int, str], at: str = "take.after") -> None:
        self.say(consumer, at, consumer=consumer, queue=Q, jobs=list(jobs.items()))

    def begin(self, consumer: str, tag: int, job: str) -> None:
        self.say(consumer, "run.before", consumer=consumer, queue=Q, tag=tag, job=job)

    def end(self, consumer: str, tag: int, job: str, outcome: str = "done") -> None:
        self.say(consumer, "run.after", consumer=consumer, queue=Q, tag=tag, job=job, outcome=outcome)

    def run(self, consumer: str, tag: int, job: str, outcome: str = "done") -> None:
        self.begin(consumer, tag, job)
        self.end(consumer, tag, job, outcome)

    def ask(self, consumer: str, *tags: int) -> None:
        self.say(consumer, "ack.before", consumer=consumer, queue=Q, tags=tags)

    def ack(self, consumer: str, *tags: int, stale: int = 0) -> None:
        self.ask(consumer, *tags)
        self.say(consumer, "ack.after", consumer=consumer, queue=Q, tags=tags, stale=stale)

    def settle(self, consumer: str, verb: str, *tags: int, stale: int = 0) -> None:
        facts = {"consumer": consumer, "queue": Q, "verb": verb, "tags": tags}
        step = "give_back" if verb == "give_back" else "settle"
        self.say(consumer, f"{step}.before", **facts)
        self.say(consumer, f"{step}.after", **facts, stale=stale)

    def finish(self, consumer: str, *tags: int, buried: Any = (), puts: Any = (), stale: int | None = 0) -> None:
        """Finish several deliveries at once; `puts` are callbacks in the same queue. `stale` None: no answer."""
        told = [(Q, job) for job in puts]
        facts = {"consumer": consumer, "queue": Q, "verb": "finish", "tags": tags, "buried": buried, "puts": told}
        self.say(consumer, "settle.before", **facts)
        if stale is None:
            self.say(consumer, "settle.failed", **facts)
        else:
            self.say(consumer, "settle.after", **facts, stale=stale)

    def work(self, consumer: str, tag: int, job: str) -> None:
        """A job from its take to its ack."""
        self.take(consumer, {tag: job})
        self.run(consumer, tag, job)
        self.ack(consumer, tag)

    def fault(self, inflight: int = 0) -> None:
        self.say("harness", "fault", kind="kill", inflight=inflight, consumers=[])

    def heal(self) -> None:
        self.say("harness", "fault.end", kind="kill")

    def look(self, marked: Any = (), locks: Any = (), alive: int = 0, **counters: int) -> None:
        """What a look at the queue has shown; `marked` are name, mode, id, place, and whether it was taken before."""
        look = {"marked": marked, "locks": dict(locks), "alive": alive, "counters": counters}
        self.say("harness", "look", queue=Q, look=look)

    def rest(self, put: int, done: int, *, keys: Any = (), processes: Any = (), **state: Any) -> None:
        queue = {"put": put, "done": done, "failed": 0, "purged": 0, "stale": 0, **state}
        self.say("harness", "final", queues={Q: queue}, keys=keys, processes=processes)

    def check(self, **demands: Any) -> Verdict:
        lines = {name: [msgspec.json.encode(line) + b"\n" for line in lines] for name, lines in self.files.items()}
        return check(lines, Demands(**demands))

    def write(self, folder: Path) -> Path:
        for name, lines in self.files.items():
            (folder / f"{name}.jsonl").write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
        return folder


def kinds(verdict: Verdict) -> list[str]:
    """The kinds of findings, each once: the invariant and the word for its breach."""
    return sorted({violation.partition(":")[0] for violation in verdict.violations})
