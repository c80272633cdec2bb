"""Run one function in a fresh process: its peak memory is its own, a time limit can end it, its prints are kept."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from joblib.externals.loky import ProcessPoolExecutor

__all__ = [
    "MEMORY_METHOD",
    "Messages",
    "OutOfTime",
    "PeakMemory",
    "Phases",
    "captured",
    "high_water_mark",
    "in_fresh_process",
]

MEMORY_METHOD = (
    "highest resident memory while fitting and transporting the held-out points, less what the process held just "
    "before (libraries imported, data loaded)"
)
_POLL_SECONDS = 0.05
_MAX_CHARACTERS = 4000


class OutOfTime(Exception):
    """A phase of the work took longer than its limit and was ended."""


@dataclass(frozen=True)
class Phases:
    """Marks that a worker leaves, one empty file a phase, and the parent's limit for the time up to each."""

    folder: Path
    limits: Mapping[str, float | None]

    def reach(self, name: str) -> None:
        """Called by the worker at the end of phase `name`."""
        (self.folder / name).touch()

    def check(self, began: float) -> None:
        """Called by the parent: raise `OutOfTime` if the phase in progress has used up its limit.

        A phase begins where the one before it ended.
        """
        for name, limit in self.limits.items():
            mark = self.folder / name
            if mark.exists():
                began = mark.stat().st_mtime
            elif limit is not None and time.time() - began > limit:
                raise OutOfTime(f"{name}: ended after its limit of {limit:g} seconds")
            else:
                return


def in_fresh_process(function: Callable[..., Any], *arguments: Any, phases: Phases) -> Any:
    """`function(*arguments)` in a new process with as many threads as torch has here.

    The process is a fork-and-exec by loky, so a script needs no `if __name__ == "__main__"`, and functions and
    classes defined in a notebook work.

    Raises:
        OutOfTime: A phase took longer than its limit; the process was ended.
        Exception: Whatever the function raised; a `RuntimeError` if the process died (out of memory, for instance).
    """
    threads = str(torch.get_num_threads())
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    executor = ProcessPoolExecutor(max_workers=1, env=dict.fromkeys(names, threads))
    try:
        began = time.time()
        future = executor.submit(function, *arguments)
        while True:
            try:
                return future.result(timeout=_POLL_SECONDS)
            except NotYet:
                phases.check(began)
    finally:
        executor.shutdown(wait=True, kill_workers=True)


@dataclass
class Messages:
    """What was printed and warned, deduplicated, after the block has ended."""

    lines: list[str]


@contextlib.contextmanager
def captured(*, descriptors: bool) -> Iterator[Messages]:
    """Keep what the block prints and warns instead of showing it.

    Args:
        descriptors: Redirect the process' own standard output and error too, for what compiled code prints; only
            for a process that is ours alone.
    """
    found, text = Messages([]), io.StringIO()
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(_descriptors_to_file()) if descriptors else None
        stack.enter_context(contextlib.redirect_stdout(text))
        stack.enter_context(contextlib.redirect_stderr(text))
        warned = stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        try:
            yield found
        finally:
            printed = text.getvalue() + (log() if log else "")
            lines = [line.strip() for line in printed.replace("\r", "\n").splitlines()]
            lines += [f"{one.category.__name__}: {one.message}" for one in warned]
            found.lines = list(dict.fromkeys(line[:_MAX_CHARACTERS] for line in lines if line))


@contextlib.contextmanager
def _descriptors_to_file() -> Iterator[Callable[[], str]]:
    """Point file descriptors 1 and 2 at a temporary file, whose text the yielded function reads."""
    with tempfile.TemporaryFile() as file:
        kept = [os.dup(number) for number in (1, 2)]
        sys.stdout.flush()
        sys.stderr.flush()
        for number in (1, 2):
            os.dup2(file.fileno(), number)

        def read() -> str:
            file.seek(0)
            return file.read(_MAX_CHARACTERS).decode(errors="replace")

        try:
            yield read
        finally:
            for number, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, number)
                os.close(copy)


class PeakMemory:
    """Growth of this process' highest resident memory since `start`.

    Linux keeps the high-water mark of the current program (VmHWM) and lets it be set back; `ru_maxrss` alone would
    count the parent's memory from before the exec. Elsewhere, and where it cannot be set back, growth is measured
    from the mark reached before, and is then a lower bound.
    """

    def start(self) -> None:
        """Take the memory held now as the zero."""
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._zero = high_water_mark()

    def grown(self) -> int | None:
        """Bytes of growth since `start`, 0 or more; None where the system does not tell (Windows)."""
        now, zero = high_water_mark(), self._zero
        return None if now is None or zero is None else max(0, now - zero)


def high_water_mark() -> int | None:
    """Highest resident memory of this program so far, bytes; None where the system does not tell (Windows)."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return None
    import resource  # which Windows lacks

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
