"""The process of a cell: its memory is its own, it can be ended from outside, and it starts in milliseconds.

`ot_lift.isolation.in_fresh_process` imports the libraries anew for every method. Hundreds of cells fork instead from
one server process that has imported them and has done nothing else, so that what a cell sees is the same.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Self

import numpy as np
import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types

from benchmarks.machine import Moment, Usage, cpu_seconds_of
from benchmarks.methods import Watched
from benchmarks.tasks import Array
from ot_lift.diagnostics import l2_uvp
from ot_lift.isolation import OutOfTime, Phases
from ot_lift.measuring import Job, measure
from ot_lift.methods import BaseMethod, Method, W2Value

_POLL_SECONDS = 0.1
_PARENT = os.getppid()  # when this process was young; a worker that has lost it starts no cell of its queue any more
# The last is imported by the first optimiser that a process makes, a second or more, which is no part of any method.
_PRELOADED = ("ot", "ot_lift.compare", "benchmarks.kinds", "benchmarks.tasks.wasserstein2", "torch._dynamo")
CURVE_POINTS = 2048  # that judge a map while it trains
_INVERTED_POINTS = 1000
_MEMORY_SHARE = 0.75  # of the machine's, for one cell: it shall fail rather than take others with it


class Stopped(OutOfTime):
    """The child was ended at a limit.

    Attributes:
        usage: time until then, with the child's CPU seconds; None where the system does not tell them.
    """

    def __init__(self, reason: str, usage: Usage | None) -> None:
        super().__init__(reason)
        self.usage = usage


def in_child(function: Callable[..., Any], *arguments: Any, phases: Phases) -> Any:
    """`function(*arguments)` in a forked process (a spawned one where the system cannot fork).

    The process ignores Ctrl-C, ends with its parent, and is killed when a phase runs over its limit.

    Raises:
        Stopped: A phase took longer than its limit.
        RuntimeError: The function raised, or the process died.
    """
    _end_without_run()
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload(list(_PRELOADED))
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, arguments))
    began, moment = time.time(), Moment.now()
    process.start()
    sender.close()
    try:
        while not receiver.poll(_POLL_SECONDS):
            try:
                phases.check(began)
            except OutOfTime as error:
                used = cpu_seconds_of(process.pid)
                raise Stopped(str(error), None if used is None else moment.until_now(used)) from None
            _end_without_run()
        with contextlib.suppress(EOFError):
            succeeded, value = receiver.recv()
            if succeeded:
                return value
            raise RuntimeError(value)
        process.join()
        raise RuntimeError(f"its process died with exit code {process.exitcode} (−9: killed, often for its memory)")
    finally:
        process.kill()
        process.join()
        receiver.close()


def _end_without_run() -> None:
    if os.getppid() != _PARENT and multiprocessing.current_process().name != "MainProcess":
        raise RuntimeError("the run that asked for this cell has ended")


def _answer(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Run in the child: send (True, value) or (False, what was raised)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _limit_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        sender.send((True, function(*arguments)))
    except Exception as error:
        sender.send((False, f"{type(error).__name__}: {error}"))


def _limit_memory() -> None:
    """Let allocations fail before the machine has no memory left, where the system can."""
    with contextlib.suppress(ImportError, ValueError, OSError, AttributeError):
        import resource  # which Windows lacks

        most = int(_MEMORY_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


# ------------------------------------------------------------------------------- what runs in it
def measured(method: Method, job: Job, threads: int) -> dict[str, Any]:
    """`ot_lift.measuring.measure` with a fixed number of threads, the machine's state and the error over time."""
    torch.set_num_threads(threads)  # this process is the cell's alone
    os.environ["NPROC"] = str(threads)  # how many threads XLA starts, when a peer imports JAX
    with threadpool_limits(threads):
        observed = _Observed(method, job)
        began = Moment.now()
        found = measure(observed, job)
        usage = began.until_now()
    details = found.pop("details", {})
    return {
        **found,
        "fit_cpu_seconds": observed.cpu_seconds,
        "invert_seconds": observed.invert_seconds,
        "usage": usage,
        "curve": observed.curve,
        "stop_reason": details.get("stop_reason"),
        "certificate": details.get("certificate"),
    }


class _Observed(BaseMethod):
    """A method whose fit notes its CPU seconds and, where it can be watched, L2-UVP over time."""

    def __init__(self, method: Method, job: Job) -> None:
        self._method, self.name, self.keeps_budget = method, method.name, method.keeps_budget
        self.settings, self.notes = method.settings, method.notes
        self.cpu_seconds: float | None = None
        self.invert_seconds: float | None = None
        self.curve: list[tuple[float, float]] = []
        points, truth = job.load("held_out"), job.load("truth")
        if isinstance(method, Watched) and points is not None and truth is not None:
            method.watch(self._noted(points[:CURVE_POINTS], truth[:CURVE_POINTS]))

    def _noted(self, points: Array, truth: Array) -> Callable[[float, Callable[[Array], Array]], None]:
        def watcher(seconds: float, transport: Callable[[Array], Array]) -> None:
            self.curve.append((round(seconds, 3), float(f"{l2_uvp(transport(points), truth, truth):.4g}")))

        return watcher

    def fit(self, X: Array, Y: Array, *, random_state: int = 0, max_seconds: float | None = None) -> Self:
        began = time.process_time()
        try:
            self._method.fit(X, Y, random_state=random_state, max_seconds=max_seconds)
        finally:
            self.cpu_seconds = time.process_time() - began
            self.settings, self.notes = self._method.settings, self._method.notes
        return self

    def transport(self, X: Array) -> Array:
        image = np.asarray(self._method.transport(X))
        self.notes = self._method.notes
        return image

    def invert(self, Y: Array) -> Array | None:
        began = time.perf_counter()
        found = self._method.invert(Y)
        if found is not None:
            self.invert_seconds = _INVERTED_POINTS / len(Y) * (time.perf_counter() - began)
        return found

    def w2_squared(self) -> W2Value | None:
        return self._method.w2_squared()

    def details(self) -> dict[str, Any]:
        return self._method.details()
