"""The guard: a shell that outlives a killed supervisor briefly, and kills its consumers and what their jobs started.

On Linux PR_SET_PDEATHSIG already kills the consumers. On other systems the consumers, and everywhere the processes that
jobs started, are killed by the consumers' process groups. The guard reads these groups from a pipe; the end of the pipe
means that the supervisor is gone.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterable

from rq_lite.logs import logger

log = logger("rq_lite.worker")

SCRIPT = (
    "groups=$*; while read -r line; do groups=$line; done; "
    'for group in $groups; do kill -s KILL -- "-$group"; done 2>/dev/null'
)


class Guard:
    """One shell process; it gets the groups again whenever they change."""

    def __init__(self) -> None:
        self.pid = 0  # 0: the system had no process or file for it
        self._start([])

    def _start(self, groups: list[str]) -> None:
        """The first groups are arguments: the shell must know them before any process can see it."""
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", SCRIPT, "rq-lite-guard", *groups],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.pid = self._process.pid

    def watch(self, groups: Iterable[int]) -> None:
        known = [str(group) for group in groups]
        if self._tell(known):
            return
        try:
            self._start(known)
        except OSError as error:
            log.error("no guard can be started just now; the next change of the consumers tries again: %s", error)

    def close(self) -> None:
        """End it; it kills nothing then."""
        if self._tell([]):
            self._forget()

    def _tell(self, groups: list[str]) -> bool:
        """Write the groups to it; False if it is gone."""
        if not self.pid:
            return False
        assert self._process.stdin is not None
        try:
            os.write(self._process.stdin.fileno(), (" ".join(groups) + "\n").encode())
        except BrokenPipeError:  # it was killed
            self._forget()
        return bool(self.pid)

    def _forget(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.returncode = 0  # reaped with the supervisor's other children
        self.pid = 0
