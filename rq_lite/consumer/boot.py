"""Entry of a consumer process: `python -m rq_lite.consumer.boot LIFE REPORTS BOARD STACKS`. Patch first, then import.

The arguments are inherited file descriptors: LIFE, the pipe with the supervisor's words, which closes when it dies;
REPORTS, the pipe to the supervisor; BOARD, the shared memory; STACKS, a file for stacks.
"""

import gc

gc.disable()  # until all is imported: imports leave no garbage, and take a fifth less time without it

from importlib import metadata

from gevent import monkey

# gevent searches all installed packages 25 times for its plugins, a quarter of a consumer's start; they do not change
# meanwhile, so once is enough. (gevent itself imports `importlib.metadata` before it patches anything.)
entry_points = metadata.entry_points
metadata.entry_points = entry_points().select
monkey.patch_all()
metadata.entry_points = entry_points

import faulthandler
import logging
import os
import random
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import FrameType
from typing import Any, NoReturn, TypeVar

import msgspec
import gevent
import gevent.os
import gevent.socket
import _socket
import socket
from gevent.hub import Hub
from gevent.threadpool import ThreadPool

from rq_lite import events
from rq_lite.admin import status
from rq_lite.broker import Broker, Link, tcp
from rq_lite.client import leases, schedules
from rq_lite.client.app import import_app, own_traceback
from rq_lite.client.current import found_by
from rq_lite.client.defaults import defaults
from rq_lite.client.middleware import WorkerEvent, registered
from rq_lite.client.registry import registry
from rq_lite.client.task import Task
from rq_lite.consumer.consumer import Consumer, Order, SuspectConsumer
from rq_lite.consumer.executor import Executor, emit_between_jobs, watched
from rq_lite.consumer.exit import critical, hard_exit
from rq_lite.consumer.offload.channel import Setup
from rq_lite.consumer.notices import Notices
from rq_lite.consumer.offload.held import HeldJobs
from rq_lite.consumer.offload.pools import Pools
from rq_lite.consumer.progress import ProgressReporter
from rq_lite.consumer.run import Expired, chances
from rq_lite.consumer.slots import Interrupted, Stopped
from rq_lite.errors import AppFailed, BrokerOutOfMemory, BrokerUnavailable, JobTimeout, RqLiteError, UsageError
from rq_lite.logs import RateLimitedLog, logger
from rq_lite.model.failure import describe
from rq_lite.model.retry import Limits, RetryPolicy
from rq_lite.process.board import EXITING, Board
from rq_lite.process.identity import mine
from rq_lite.process.protocol import NOTICES, REBUILD, RETIRE, ChildEvent, ConsumerConfig, read_config
from rq_lite.process.signals import Handler, Signals, name_of, refuse
from rq_lite.process.streams import by_line
from rq_lite.process.subprocesses import STACK, die_with, rss, tell_stacks
from rq_lite.redis_url import redacted

gc.freeze()  # what was imported stays: no collection needs to look at it
gc.enable()

log = logger("rq_lite.consumer")

STOPPING = (signal.SIGTERM, signal.SIGINT)

T = TypeVar("T")

# Threads per event loop for name lookups (gevent: 10). A name whose servers do not answer holds one for up to 40 s.
LOOK_UPS = 600
OWN_LOOK_UPS = 16  # threads that look up Redis and its sentinels, out of reach of jobs


def main() -> None:
    life, reports, board, stacks = map(int, sys.argv[1:])
    plan = read_config(life)
    die_with(plan.parent)
    by_line(monkey.get_original("select", "poll"))
    set_up_log(plan)
    tell_stacks(stacks)
    tell_exits(stacks)
    seldom = RateLimitedLog(log, seconds=0.0) if plan.verbose else RateLimitedLog(log)
    signals = Signals({*STOPPING, STACK, signal.SIGPIPE}, only_logged(seldom), shared=True)
    try:
        events.begin("consumer")
        Link.careful = False  # the handlers of this process only wake the hub
        check_patched()
        look_up_apart()
        slots = Board(board, 1 if plan.alone else plan.settings.greenlets)
        consumer, notices = prepare(plan, reports, slots, signals, seldom)
    except BaseException as error:
        ChildEvent("failed", error=said(error), traceback=told(error)).send(reports)
        hard_exit(error.exit_code if isinstance(error, RqLiteError) else 1)  # not waiting for threads of the app
    words = {REBUILD: consumer.rebuild, RETIRE: consumer.retire, NOTICES: notices.look}
    critical(gevent.spawn(listen, life, words))
    try:
        consumer.run()
    except BaseException:
        log.exception("internal error in this consumer; it exits and its jobs will be reclaimed")
        hard_exit(1)
    emit_between_jobs("worker_stop", event_of(plan))
    leases.end()
    ChildEvent("left").send(reports)
    hard_exit(0)


def prepare(
    plan: ConsumerConfig, reports: int, board: Board, signals: Signals, seldom: RateLimitedLog
) -> tuple[Consumer, Notices]:
    """Import the app and make the consumer for its queues; report `hello`, then `ready`."""
    name = str(mine())
    ChildEvent("hello", consumer=name).send(reports)
    broker = Broker(settings=plan.settings, quiet=True)
    patiently(plan, broker.open)
    defaults.use(plan.settings, broker)
    defaults.serves = plan.queues or registry.queues  # registry.queues grows during the import, which may put
    import_app(plan.app, embedded=plan.embedded)
    signals.imported()
    vars(gevent)["signal_handler"] = lambda *_, **__: refuse("gevent.signal_handler")
    weights = plan.queues or dict.fromkeys(registry.working_queues(), 1.0)
    defaults.serves = frozenset(weights)
    patiently(plan, lambda: check_queues(plan, broker, weights))
    bounds = patiently(plan, lambda: {queue: declare(queue, broker) for queue in weights})
    patiently(plan, lambda: declare_schedules(weights, broker))
    hire = Setup(settings=plan.settings, app=plan.app, number=plan.number, queues=list(weights))
    elsewhere = Pools(hire, HeldJobs(broker, name))
    executor = Executor(
        registry.tasks, name, elsewhere, verbose=plan.verbose, signer=broker.core.signer,
        max_result=plan.settings.max_result, seldom=seldom,
        limits=Limits(plan.settings.max_crashes, plan.settings.max_worker_deaths),
    )  # fmt: skip
    run = watched(executor.run, name) if events.subscribers else executor.run
    found_by(ProgressReporter(broker, name).find)
    kind = SuspectConsumer if plan.alone else Consumer
    order = Order(weights, strict=plan.strict)
    consumer = kind(
        broker,
        name,
        order,
        board,
        run,
        grace=plan.settings.grace,
        seldom=seldom,
        declare=partial(declare_again, broker),
    )
    os.register_at_fork(after_in_child=consumer.forked)
    stop_on_signals(consumer, signals)
    emit_between_jobs("worker_start", event_of(plan))
    tasks = {task.name: known(task) for task in registry.tasks.values()}
    ready = ChildEvent(
        "ready", consumer=name, queues=bounds, tasks=tasks, hooks=registered.failures, rss=rss(os.getpid())
    )
    ready.send(reports)
    return consumer, Notices(broker, list(weights), executor.tell)


def event_of(plan: ConsumerConfig) -> WorkerEvent:
    """This process, as its hooks get it."""
    return WorkerEvent(process="consumer", number=plan.number, queues=tuple(sorted(defaults.serves or ())))


def known(task: Task[Any, Any]) -> RetryPolicy:
    """What the supervisor needs to settle a job of this task whose consumer was killed, or died."""
    return msgspec.structs.replace(
        chances(task.policy, JobTimeout()), says=task.says, max_crashes=task.policy.max_crashes
    )


def patiently(plan: ConsumerConfig, step: Callable[[], T]) -> T:
    """Run a step. If Redis was there when the worker began (`patient`), wait for it, instead of exiting repeatedly."""
    while True:
        try:
            return step()
        except BrokerUnavailable as error:
            if not plan.patient:
                raise
            log.warning("%s; trying again", error)
        time.sleep(random.uniform(0.5, 1.5))


def listen(life: int, tell: Mapping[bytes, Callable[[], None]]) -> None:
    """Obey the supervisor's words. When its end of the pipe closes it is gone, and this process exits, too."""
    gevent.os.make_nonblocking(life)
    rest = b""
    while piece := gevent.os.nb_read(life, 4096):
        *words, rest = (rest + piece).split(b"\n")
        for word in words:
            gevent.get_hub().loop.run_callback(tell[word])
    os._exit(1)


def tell_exits(file: int) -> None:
    """Let `os._exit` write its caller's stack to `file` first, so that the supervisor knows which job called it."""
    here, leave_now = os.getpid(), os._exit

    def told(status: int) -> NoReturn:
        if os.getpid() == here:  # a process that a job has forked may exit unreported
            os.write(file, EXITING.encode())
            faulthandler.dump_traceback(file, all_threads=False)
        leave_now(status)

    os._exit = told


def check_queues(plan: ConsumerConfig, broker: Broker, weights: dict[str, float]) -> None:
    known = {*registry.queues, *status.queues(broker)}
    unknown = [queue for queue in weights if queue not in known]
    if unknown:
        raise UsageError(
            f"unknown queue {', '.join(map(repr, unknown))}; app {plan.app!r} has {', '.join(sorted(registry.queues))}"
        )
    for queue in weights:
        own = registry.queues.get(queue)
        if own is not None and own.broker.url != broker.url:
            raise UsageError(
                f"queue {queue!r} is bound to Redis at {own.broker.shown}, this worker to {broker.shown}; "
                "start a worker with that --url"
            )


def declare(queue: str, broker: Broker) -> int:
    """Declare it; its bound. A full Redis may refuse a new queue, which must not stop a worker that drains others."""
    own = registry.queues.get(queue)
    try:
        return own.declare()[0] if own is not None else broker.puts.declare(queue)[0]
    except BrokerOutOfMemory:
        log.warning("queue %r is new and cannot be declared: Redis is at its maxmemory", queue)
        return broker.settings.maxsize


def declare_again(broker: Broker, queue: str) -> None:
    try:
        declare(queue, broker)
        declare_schedules([queue], broker)
    except RqLiteError as error:
        log.warning("queue %r: %s", queue, error)


def declare_schedules(queues: Iterable[str], broker: Broker) -> None:
    try:
        schedules.declare(broker, [task for task in registry.tasks.values() if task.queue.name in queues])
    except BrokerOutOfMemory as error:
        log.warning("the app's schedules were not updated: %s", error)


def stop_on_signals(consumer: Consumer, signals: Signals) -> None:
    """Signal handlers run inside whichever greenlet is current: they only wake the hub, which stops the consumer."""
    wake = gevent.get_hub().loop.async_()
    wake.start(consumer.stop)
    for number in STOPPING:
        signals.set(number, lambda *_: wake.send())


def only_logged(seldom: RateLimitedLog) -> Callable[[Handler, int, FrameType | None], None]:
    """A caller for the app's signal handlers: an error of one is not raised in a job; another greenlet logs it."""
    said: deque[tuple[str, str]] = deque()
    wake = gevent.get_hub().loop.async_()

    def say() -> None:
        while said:
            seldom.warn(*said.popleft())

    def run(handler: Handler, number: int, frame: FrameType | None) -> None:
        try:
            handler(number, frame)
        except (Expired, Interrupted, Stopped):  # meant for the job in whose greenlet the handler runs
            raise
        except BaseException as error:
            what = f"the app's handler of {name_of(number)} raised {describe(error, 0.0).error}"
            said.append((what, f"{what}; the error reaches no job"))
            wake.send()

    wake.start(gevent.spawn, say)
    return run


def check_patched() -> None:
    """Refuse to run jobs in a process where a blocking call would block all of them."""
    cooperative = (
        socket.socket is gevent.socket.socket
        and time.sleep is gevent.sleep
        and sys.modules["redis.retry"].__dict__["sleep"] is gevent.sleep
    )
    if not cooperative:
        raise UsageError("sockets are not patched by gevent: something was imported before rq_lite.consumer.boot")


def look_up_apart() -> None:
    """Enough threads for name lookups, and separate ones for Redis: jobs that wait for slow names delay neither."""
    Hub.threadpool_size = LOOK_UPS
    own, usual = ThreadPool(OWN_LOOK_UPS), socket.getaddrinfo

    def resolve(*args: Any, **options: Any) -> tcp.Found:
        if own.hub is not gevent.get_hub():  # called in a thread that runs a job: its loop has threads of its own
            return usual(*args, **options)
        found: tcp.Found = own.apply(_socket.getaddrinfo, args, options)
        return found

    tcp.resolve = resolve


def set_up_log(plan: ConsumerConfig) -> None:
    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s consumer {plan.number} [{os.getpid()}] %(message)s",
        datefmt="%H:%M:%S",
    )


def said(error: BaseException) -> str:
    return redacted(str(error) if isinstance(error, RqLiteError) else f"{type(error).__name__}: {error}")


def told(error: BaseException) -> str:
    """The traceback if it helps the user: of the app's own error, or of an internal error."""
    if isinstance(error, AppFailed) and error.__cause__ is not None:
        return redacted(own_traceback(error.__cause__))
    return "" if isinstance(error, RqLiteError) else redacted("".join(traceback.format_exception(error)))


if __name__ == "__main__":
    main()
