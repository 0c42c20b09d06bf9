"""A consumer's engines: processes in which jobs with run_in="process" run, one in each at a time.

They are started when they are first needed, and kept. The slot's greenlet waits for the answer, and passes on to the
engine, as a signal, what is raised in it meanwhile (Expired at the deadline, and again every second). If the job does
not end then, its engine is killed: the consumer and all its other jobs go on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, cast

import gevent
import msgspec
from gevent.lock import Semaphore

from rq_lite.client.current import Brought, current_job
from rq_lite.consumer.offload.channel import Answer, Channel, Run, Setup
from rq_lite.consumer.offload.engine import INTERRUPT, encode
from rq_lite.consumer.run import Expired
from rq_lite.consumer.slots import Slot, Stopped
from rq_lite.logs import RateLimitedLog, logger
from rq_lite.model.backoff import pauses
from rq_lite.model.failure import RemoteFailure
from rq_lite.model.retry import Failure
from rq_lite.process.board import NEVER, SECOND
from rq_lite.process.protocol import SHORTEST_GRACE
from rq_lite.process.subprocesses import Stacks, ending, module_command

log = logger("rq_lite.consumer")

FAREWELL = 0.5  # seconds that a job has to end when its consumer stops; below consumer.SWALLOWED
REAPED = 2.0  # seconds that a process has to end after it closed its channel

read_answer = msgspec.json.Decoder(Answer).decode


class Died(BaseException):
    """The engine died while it ran the job."""

    def __init__(self, how: str, where: str) -> None:
        super().__init__(how)
        self.how = how
        self.where = where


class Engine:
    """One engine, as its consumer sees it; in the consumer's process group, so that they are killed together."""

    def __init__(self, folder: Path) -> None:
        ours, theirs = socket.socketpair()
        self._stacks = Stacks()
        inherited = (theirs.fileno(), self._stacks.file)
        try:
            self._process = subprocess.Popen(
                module_command("rq_lite.consumer.offload.engine", *map(str, inherited), str(os.getpid())),
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
                cwd=folder,
            )
        except BaseException:
            ours.close()
            self._stacks.close()
            raise
        finally:
            theirs.close()
        self._frames = Channel(ours)
        # Processes that its jobs have forked may hold its end of the channel open; so its death ends the channel, too.
        cast(Any, self._process).rawlink(self._close)
        self.pid = self._process.pid

    def _close(self, _: object) -> None:
        with contextlib.suppress(OSError):
            self._frames.end.shutdown(socket.SHUT_RD)  # what it sent before can still be read

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def send(self, *parts: bytes) -> None:
        self._frames.send(b"\n".join(parts))

    def answer(self) -> Answer | None:
        """The next answer; None: the engine is gone. An exception raised in this wait loses no part of an answer."""
        frame = self._frames.receive()
        return None if frame is None else read_answer(frame)

    @property
    def deaf(self) -> bool:
        """It died and had not read the last job that it was sent: that job did not kill it."""
        return self._frames.unread

    def signal(self, number: int) -> None:
        if self.alive:  # else its pid may be another process's
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def stack(self) -> str:
        """Its stack just now; empty if it does not write one in time."""
        return self._stacks.asked(self.signal)

    def last_stack(self) -> str:
        return self._stacks.last()

    def end(self) -> str:
        """How it ended, once its end of the channel is closed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(REAPED)
        code = self._process.poll()
        return "closed its channel" if code is None else ending(code)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self._frames.end.close()
        self._stacks.close()


class ProcessPool:
    """Up to `most` engines, started in `folder`.

    `grace`: seconds that a job has between the first interruption and the engine's end.
    """

    def __init__(self, hire: Setup, most: int, grace: float, folder: Path) -> None:
        self._hire = hire
        self._grace = max(SHORTEST_GRACE, grace)
        self._folder = folder
        self._places = Semaphore(most)
        self._idle: list[Engine] = []
        self._seldom = RateLimitedLog(log)

    def run(self, slot: Slot[Any], entry: bytes, timeout: int) -> Any:
        """The job's result as JSON (msgspec.Raw), `null` unless it is tracked. `timeout`: ns, from when it begins.

        Raises RemoteFailure, with the job's own error; Died; and the exception that interrupted this greenlet, once the
        job has ended.
        """
        with self._places:
            answer: Answer | None = None
            while answer is None:
                engine = self._given(slot, entry, timeout)
                try:
                    answer, thrown = self._answer(engine, slot)
                except BaseException:
                    engine.kill()
                    raise
                if answer is None:
                    engine.kill()
            if answer.leaving:
                engine.kill()
            else:
                self._idle.append(engine)
        if answer.event == "interrupted" and thrown is not None:
            raise Expired(where=answer.traceback) if isinstance(thrown, Expired) else thrown
        if answer.puts:
            slot.current = slot.tag, Brought(answer.puts)
        return result_of(answer)

    def _given(self, slot: Slot[Any], entry: bytes, timeout: int) -> Engine:
        """Send the job to an engine, and return that."""
        assert slot.lane is not None
        while True:
            engine = self._idle.pop() if self._idle else self._started()
            try:
                if engine.alive:
                    engine.send(encode(Run(slot.lane.queue, timeout / SECOND)), entry)
                    slot.began = time.monotonic_ns()
                    slot.deadline = slot.began + timeout
                    return engine
            except OSError:
                pass  # the engine died before it had the job, which is not to blame
            except BaseException:
                engine.kill()
                raise
            engine.kill()

    def _started(self) -> Engine:
        """Start an engine that has imported the app; tries for ever."""
        for pause in pauses():
            try:
                engine = Engine(self._folder)
            except OSError as error:  # no more processes or files, or the folder is gone
                how = str(error)
            else:
                answer = None
                try:
                    engine.send(encode(self._hire))
                    answer = engine.answer()
                except OSError:
                    pass
                except BaseException:
                    engine.kill()
                    raise
                if answer is not None and answer.event == "ready":
                    return engine
                how = f"it {engine.end()}" if answer is None else f"{answer.error}\n{answer.traceback}".strip()
                engine.kill()
            self._seldom.warn("engine", f"an engine for run_in='process' cannot begin, its jobs wait: {how}")
            gevent.sleep(pause)
        raise AssertionError("pauses never end")

    def _answer(self, engine: Engine, slot: Slot[Any]) -> tuple[Answer | None, BaseException | None]:
        """The job's last answer (None: the engine died before it read the job), and what was raised here meanwhile."""
        thrown: BaseException | None = None
        kill_at = NEVER
        while True:
            try:
                answer = self._ending(engine)
                break
            except Stopped:
                slot.deadline = NEVER
                engine.signal(INTERRUPT)
                answer = None
                with gevent.Timeout(FAREWELL, False):
                    answer = self._ending(engine)
                if answer is None or answer.event == "interrupted":
                    raise
                break
            except BaseException as error:
                thrown, now = error, time.monotonic_ns()
                slot.words[slot.due] = NEVER  # a cancel sets it, for the consumer to be killed; here only the engine is
                kill_at = min(kill_at, now + round(self._grace * SECOND))
                if now >= kill_at:
                    slot.deadline = NEVER
                    raise self._hard(engine, error) from None
                engine.signal(INTERRUPT)
        slot.deadline = NEVER
        if answer is None and (thrown is not None or not engine.deaf):
            raise Died(engine.end(), engine.last_stack())
        return answer, thrown

    @staticmethod
    def _ending(engine: Engine) -> Answer | None:
        """The job's last answer; pass on its progress before."""
        while (answer := engine.answer()) is not None and answer.progress is not None:
            current = current_job()
            if current is not None:
                current.progress(answer.progress.done, answer.progress.total, answer.progress.note)
        return answer

    def _hard(self, engine: Engine, error: BaseException) -> BaseException:
        if not isinstance(error, Expired):
            return error
        said = f"hard limit: its timeout and {self._grace:g} s of grace were over; its process was killed"
        log.error("killing engine [%d]: its job runs beyond its hard time limit", engine.pid)
        return Expired(said, engine.stack())


def result_of(answer: Answer) -> Any:
    """The result as JSON (msgspec.Raw). Raises RemoteFailure for a run that failed."""
    if answer.event == "done":
        return answer.result
    failure = Failure(answer.error, answer.traceback, answer.seconds, answer.delay, answer.message)
    raise RemoteFailure(failure, final=answer.final)
