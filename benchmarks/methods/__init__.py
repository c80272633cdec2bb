"""Methods of the runner: ours and its peers. Every module of this folder offers one or more of them.

A module offers `methods(task)`, which yields `ot_lift.methods.Method` objects or raises `Unavailable`. A new method is
one new file. A method may also offer `watch` (see `Watched`): its error over time is then recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy.typing as npt

from benchmarks.tasks import Task, Unavailable, modules_of
from ot_lift.methods import Method

OURS = "ot-lift"  # the name of ours, and the beginning of the names of its variants

Watcher = Callable[[float, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]], None]
"""Called during a fit with the seconds so far and the map of that moment."""


@runtime_checkable
class Watched(Protocol):
    """A method whose map can be looked at while it is fitted."""

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher` from time to time in the next fit."""


def find_methods(task: Task) -> tuple[list[Method], list[str]]:
    """Every method for a task, and a sentence for each that is not available here.

    Example:
        >>> from benchmarks.tasks.gaussian import GaussianPair
        >>> methods, missing = find_methods(GaussianPair(features=2, rows=50, test_rows=20, budget_seconds=1.0))
        >>> {"identity", "linear", "EMD", "ot-lift"} <= {method.name for method in methods}
        True
    """
    found: list[Method] = []
    missing: list[str] = []
    for module in modules_of("benchmarks.methods"):
        try:
            found += module.methods(task)
        except Unavailable as reason:
            missing.append(f"{module.__name__.rpartition('.')[2]}: {reason}")
    return sorted(found, key=lambda method: method.name.startswith(OURS)), missing
