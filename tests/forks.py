"""Runs that are to be killed, forked from one process that has imported what they need: imports take seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_TESTS = Path(__file__).parent

_SERVER = """
import os, sys
for line in sys.stdin:
    if not (process := os.fork()):
        victim(line.rstrip())
        sys.exit()
    print(process, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Forks:
    """Starts runs one after the other."""

    commands: IO[str]
    answers: IO[str]

    def start(self, text: object = "") -> int:
        """The process of a run of the program's `victim(text)`."""
        self.commands.write(f"{text}\n")
        return int(self.answers.readline())

    def end(self) -> int:
        """Wait for the run that was started last: its exit status, or minus the signal that ended it."""
        return int(self.answers.readline())


@contextmanager
def forks(program: str, folder: Path) -> Iterator[Forks]:
    """Forks of a program that defines `victim`, in a folder; it finds the library and these tests."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(_TESTS), str(_TESTS.parent)])}
    with subprocess.Popen(
        [sys.executable, "-c", program + _SERVER],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        start_new_session=True,
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        try:
            yield Forks(server.stdin, server.stdout)
        finally:
            os.killpg(server.pid, signal.SIGKILL)  # with a run that a failed test has left
