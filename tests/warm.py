"""Commands as processes of their own that need no new interpreter: forks of one that has imported them already.

Starting an interpreter and importing a command takes 0.3 s of CPU, a fork 0.02 s. A forked command has its own
pid, environment, folder, streams and exit code, gets real signals, and ends as any interpreter does; what differs is
that its modules were imported before, with the environment of the tests. `Commands.fresh` starts interpreters.

    test ──argv, folder, environment, three files──► nursery ──fork──► command
         ◄──pid, then the status of its end──────────┘
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import pkgutil
import runpy
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any, TypeAlias

WORD = struct.Struct("!q")
# Python reads these when it starts, or modules do when they are imported.
AT_START = ("LC_", "LANG", "PYTHON", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "GEVENT", "LD_")
OF_PATH = "PYTHONPATH"
STREAMS = {"stdin", "stdout", "stderr"}


class Nursery:
    """One warm interpreter; `start` forks it. It ends with the process that made it."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._path = str(folder / "nursery.sock")
        self._at_start = at_start(environment)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(self._path)
            listening.listen(128)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.warm", str(listening.fileno())],
                stdin=subprocess.PIPE,
                pass_fds=[listening.fileno()],
                cwd=Path(__file__).parents[1],
                env=environment,
            )

    def start(self, argv: list[str], folder: Path, environment: dict[str, str], files: list[int]) -> tuple[Any, int]:
        """The socket that tells of its end, and the pid."""
        told = socket.socket(socket.AF_UNIX)
        told.connect(self._path)
        body = json.dumps([argv, str(folder), environment]).encode()
        socket.send_fds(told, [WORD.pack(len(body))], files)
        told.sendall(body)
        return told, WORD.unpack(read(told, WORD.size))[0]

    def can_be(self, environment: dict[str, str]) -> bool:
        """False if a command with this environment needs an interpreter of its own."""
        return at_start(environment) == self._at_start

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def at_start(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(AT_START) and name != OF_PATH}


class Forked:
    """A forked command, with the part of `subprocess.Popen` that tests use."""

    def __init__(
        self, nursery: Nursery, argv: list[str], *, cwd: Path, env: dict[str, str], stdin: Any, stdout: Any, stderr: Any
    ) -> None:
        self.args = argv
        self.returncode: int | Any = None  # as Popen has it
        closing: list[int] = []
        self.stdin, zero = self._stream(stdin, 0, closing)
        self.stdout, one = self._stream(stdout, 1, closing)
        self.stderr, two = (self.stdout, one) if stderr == subprocess.STDOUT else self._stream(stderr, 2, closing)
        self._told, self.pid = nursery.start(argv, cwd, env, [zero, one, two])
        for file in closing:
            os.close(file)

    def _stream(self, wanted: Any, number: int, closing: list[int]) -> tuple[IO[str] | None, int]:
        """What the test has of a stream, and the file for the command."""
        if wanted == subprocess.PIPE:
            reading, writing = os.pipe()
            mine, theirs = (writing, reading) if number == 0 else (reading, writing)
            closing.append(theirs)
            return os.fdopen(mine, "w" if number == 0 else "r", encoding="utf-8"), theirs
        if wanted is None:
            return None, number
        if wanted == subprocess.DEVNULL:
            closing.append(os.open(os.devnull, os.O_RDWR))
            return None, closing[-1]
        return None, wanted if isinstance(wanted, int) else wanted.fileno()

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], 0)[0]:
            self._learn()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                assert timeout is not None
                raise subprocess.TimeoutExpired(self.args, timeout)
            self._learn()
        assert self.returncode is not None
        return self.returncode

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()

    def _learn(self) -> None:
        self.returncode = os.waitstatus_to_exitcode(WORD.unpack(read(self._told, WORD.size))[0])
        self._told.close()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def communicate(self, given: str | None = None, timeout: float | None = None) -> tuple[str, str]:
        """What it wrote to its pipes, once it has ended."""
        end = None if timeout is None else time.monotonic() + timeout
        heard: dict[Any, bytes] = {self.stdout: b"", self.stderr: b""}
        left = (given or "").encode()
        with selectors.DefaultSelector() as waiting:
            for stream in {self.stdout, self.stderr} - {None}:
                assert stream is not None
                if not stream.closed:
                    waiting.register(stream, selectors.EVENT_READ)
            if self.stdin is not None and not self.stdin.closed:
                if left:
                    os.set_blocking(self.stdin.fileno(), False)
                    waiting.register(self.stdin, selectors.EVENT_WRITE)
                else:
                    self.stdin.close()
            while waiting.get_map():
                ready = waiting.select(None if end is None else max(0.0, end - time.monotonic()))
                if not ready and timeout is not None:
                    raise subprocess.TimeoutExpired(self.args, timeout)
                for key, _ in ready:
                    if key.fileobj is self.stdin:
                        try:
                            left = left[os.write(key.fd, left[: select.PIPE_BUF]) :]
                        except BrokenPipeError:
                            left = b""
                        if not left:
                            waiting.unregister(key.fileobj)
                            with contextlib.suppress(BrokenPipeError):
                                self.stdin.close()
                    elif part := os.read(key.fd, 65536):
                        heard[key.fileobj] += part
                    else:
                        waiting.unregister(key.fileobj)
        self.wait(None if end is None else max(0.0, end - time.monotonic()))
        for stream in {self.stdout, self.stderr} - {None}:
            assert stream is not None
            stream.close()
        return text(heard[self.stdout]), text(heard[self.stderr])


Process: TypeAlias = subprocess.Popen[str] | Forked


def launch(nursery: Nursery | None, *arguments: str, cwd: Path, env: dict[str, str], **options: Any) -> Process:
    """`rq-lite …`: a fork of the nursery where there is one and a fork can be what is asked for."""
    argv = [sys.executable, "-m", "rq_lite", *arguments]
    options = {"stdin": None, "stdout": None, "stderr": None, **options}
    if nursery is None or options.keys() > STREAMS or not nursery.can_be(env):
        return subprocess.Popen(argv, cwd=cwd, env=env, text=True, **options)
    return Forked(nursery, argv, cwd=cwd, env=env, **options)


def text(found: bytes) -> str:
    """As a stream that is opened as text reads it."""
    return io.TextIOWrapper(io.BytesIO(found), encoding="utf-8").read()


def read(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = connection.recv(size - len(found))
        if not part:
            raise ConnectionError("the nursery has ended")
        found += part
    return found


# -- in the nursery


def serve(listening: socket.socket) -> tuple[list[str], str, dict[str, str]] | None:
    """Fork for each request. In a child: what to be, with its files in place; here: None, when the parent has ended."""
    living: dict[int, socket.socket] = {}
    waking, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the tests hear it
    while True:
        ready, _, _ = select.select([listening.fileno(), waking, 0], [], [])
        if 0 in ready:
            return None
        if waking in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(waking, 4096)
        while living:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            with living.pop(pid) as told, contextlib.suppress(OSError):
                told.sendall(WORD.pack(status))
        if listening.fileno() in ready:
            connection, _ = listening.accept()
            length, files, _, _ = socket.recv_fds(connection, WORD.size, 3)
            wanted = json.loads(read(connection, WORD.unpack(length)[0]))
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                for number, file in enumerate(files):
                    os.dup2(file, number)
                for mine in (*files, waking, wake, listening.detach(), *(one.detach() for one in living.values())):
                    os.close(mine)
                connection.close()
                return wanted  # type: ignore[no-any-return]
            for file in files:
                os.close(file)
            living[pid] = connection
            connection.sendall(WORD.pack(pid))


def become(argv: list[str], folder: str, environment: dict[str, str]) -> None:
    """Run `python -m rq_lite …` in this process."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        errors = "backslashreplace" if name == "stderr" else "strict"
        file = open(number, "w" if number else "r", errors=errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, file)
        setattr(sys, f"__{name}__", file)
    sys.argv = argv[2:]
    sys.path[0] = folder
    given = environment.get(OF_PATH, "").split(os.pathsep)
    sys.path[1:1] = [path for path in given if path and path not in sys.path]
    gc.enable()
    runpy.run_module("rq_lite", run_name="__main__", alter_sys=True)


def main() -> None:
    listening = socket.socket(fileno=int(sys.argv[1]))
    for home in ("rq_lite.cli", "rq_lite.feeds", "rq_lite.duties", "rq_lite.admin"):
        for module in pkgutil.iter_modules(importlib.import_module(home).__path__, f"{home}."):
            importlib.import_module(module.name)
    for name in ("rq_lite.supervisor.supervisor", "rq_lite.chaos.command", "rq_lite.demo.command"):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    gc.disable()
    wanted = serve(listening)
    if wanted is not None:
        become(*wanted)


if __name__ == "__main__":
    main()
