"""The contenders and their commands; nothing here imports another library."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
VENVS = FOLDER / ".venvs"
HERE = ""  # the environment that runs the benchmark itself


@dataclass(frozen=True)
class Contender:
    """One library in one configuration.

    `worker` is a command: `{python}` and `{bin}` are replaced by the interpreter and the scripts of its environment,
    `{procs}` and `{slots}` by the sizes. It is started `procs` times unless it starts its processes itself.
    `killed` is what happens, with these settings, to the jobs that a killed worker had taken: read in the library's
    code and documentation, not measured.
    """

    name: str
    label: str
    module: str
    worker: str
    killed: str
    jobs: int  # no-op jobs: enough for about 4 seconds on two cores
    naps: int  # jobs of 50 ms: enough for about 4 seconds
    settings: str = ""  # what differs from the library's defaults, for the report
    venv: str = HERE
    starts_all: bool = False
    concurrent: bool = True  # several jobs at a time in one process
    packages: tuple[str, ...] = ()  # whose versions are part of the result
    puts: int = 4_000  # put one by one, timed
    procs: tuple[int, ...] = (2,)  # sizes for the no-op run

    def bin(self) -> Path:
        return Path(sys.executable).parent if self.venv == HERE else VENVS / self.venv / "bin"

    def python(self) -> Path:
        return Path(sys.executable) if self.venv == HERE else self.bin() / "python"

    def ready(self) -> bool:
        return self.python().exists()

    def commands(self, procs: int, slots: int, *, naps: bool = False) -> list[list[str]]:
        """The worker commands to start; `naps`: for jobs that sleep, since some libraries are tuned by job length."""
        fields = {
            "python": self.python(),
            "bin": self.bin(),
            "procs": procs,
            "slots": slots,
            "prefetch": 1 if naps else 4,
        }
        times = 1 if self.starts_all else procs
        return [[part.format(**fields, number=n) for part in self.worker.split()] for n in range(times)]


GEVENT = ("redis", "hiredis", "gevent", "greenlet")

ALL = (
    Contender(
        "ours",
        "rq_lite",
        "benchmarks.ours",
        "{python} -m rq_lite work benchmarks.tasks --procs {procs} --greenlets {slots}",
        "runs again",
        800_000,
        24_000,
        settings="defaults; retries 0, timeout 600 s, supervised; one put or batches of 500",
        starts_all=True,
        packages=("rq_lite", "msgspec", *GEVENT),
        procs=(1, 2),
    ),
    Contender(
        "minimal",
        "minimal loop",
        "benchmarks.minimal",
        "{python} -m gevent.monkey --module benchmarks.minimal_loop {slots}",
        "still recorded",
        1_000_000,
        24_000,
        settings="the least code for the same promise at this speed: no leases, retries, supervision, clean stop",
        packages=("msgspec", *GEVENT),
        procs=(1, 2),
    ),
    Contender(
        "dramatiq",
        "dramatiq-gevent",
        "benchmarks.peers.on_dramatiq",
        "{bin}/dramatiq-gevent benchmarks.peers.on_dramatiq -p {procs} -t {slots}",
        "runs again",
        20_000,
        8_000,
        settings="default middleware and prefetch; redis-py's pool enlarged to 1000 connections, else it stalls",
        venv="dramatiq",
        starts_all=True,
        packages=("dramatiq", *GEVENT),
    ),
    Contender(
        "huey",
        "Huey (greenlet)",
        "benchmarks.peers.on_huey",
        "{python} -m gevent.monkey {bin}/huey_consumer benchmarks.peers.on_huey.huey -k greenlet -w {slots} -q",
        "lost",
        8_000,
        8_000,
        settings="RedisHuey, greenlet workers; redis-py's pool enlarged to 1000 connections",
        venv="huey",
        packages=("huey", *GEVENT),
    ),
    Contender(
        "celery",
        "Celery (gevent)",
        "benchmarks.peers.on_celery",
        "{bin}/celery -A benchmarks.peers.on_celery worker -P gevent -c {slots} --prefetch-multiplier {prefetch}"
        " -n w{number} -l WARNING --without-gossip --without-mingle --without-heartbeat",
        "lost",
        6_000,
        4_000,
        settings="results ignored; prefetch multiplier 4, 1 for jobs that sleep; acknowledges early, its default",
        venv="celery",
        packages=("celery", "kombu", *GEVENT),
    ),
    Contender(
        "taskiq",
        "Taskiq (streams)",
        "benchmarks.peers.on_taskiq",
        "{bin}/taskiq worker benchmarks.peers.on_taskiq:broker --workers {procs} --max-async-tasks {slots}"
        " --log-level WARNING",
        "runs again after 10 min",
        16_000,
        8_000,
        settings="RedisStreamBroker, the one that acknowledges; uvloop; async bodies; pool of 1000 connections",
        venv="taskiq",
        starts_all=True,
        packages=("taskiq", "taskiq-redis", "uvloop", "redis", "hiredis"),
    ),
    Contender(
        "saq",
        "SAQ",
        "benchmarks.peers.on_saq",
        "{bin}/saq benchmarks.peers.on_saq.settings --workers {procs}",
        "marked aborted",
        10_000,
        8_000,
        settings="concurrency 200; async bodies",
        venv="saq",
        starts_all=True,
        packages=("saq", "redis", "hiredis"),
    ),
    Contender(
        "rq-simple",
        "RQ SimpleWorker",
        "benchmarks.peers.on_rq",
        "{python} -m benchmarks.peers.on_rq SimpleWorker",
        "marked failed",
        1_500,
        120,
        settings="one job at a time, no fork; result_ttl 0",
        venv="rq",
        concurrent=False,
        packages=("rq", "redis", "hiredis"),
    ),
    Contender(
        "rq",
        "RQ (fork per job)",
        "benchmarks.peers.on_rq",
        "{python} -m benchmarks.peers.on_rq Worker",
        "marked failed",
        300,
        120,
        settings="one job at a time, a fork for each, the app imported before; result_ttl 0",
        venv="rq",
        concurrent=False,
        packages=("rq", "redis", "hiredis"),
    ),
    Contender(
        "bare",
        "bare BRPOP, no queue",
        "benchmarks.bare",
        "{python} -m benchmarks.bare",
        "lost",
        40_000,
        200,
        settings="LPUSH and BRPOP through redis-py with its defaults, JSON; no promise, for the ratios",
        concurrent=False,
        packages=("redis", "hiredis"),
        puts=20_000,
    ),
)
