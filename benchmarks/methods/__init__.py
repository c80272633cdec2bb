"""Methods of the runner: ours and its peers. Every module of this folder offers one or more of them.

A module offers `methods(task)`, which yields `ot_lift.methods.Method` objects or raises `Unavailable`. A new method is
one new file. A method may also offer `watch` (see `Watched`): its error over time is then recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

import numpy.typing as npt

from benchmarks.tasks import Task, found_in
from ot_lift.methods import Method

OURS = "ot-lift"  # the name of ours, and the beginning of the names of its variants
QUICK_TASK = "gaussian-d8"  # the one that slow peers and variants run on in a quick look

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
    found, missing = found_in("benchmarks.methods", lambda module: module.methods(task))
    return ours_last(found), missing


def ours_last(methods: Iterable[Any]) -> list[Any]:
    """The methods, those of this library after all others.

    Example:
        >>> from ot_lift.methods import BrenierMethod, IdentityMethod
        >>> [method.name for method in ours_last([BrenierMethod(), IdentityMethod()])]
        ['identity', 'ot-lift']
    """
    return sorted(methods, key=lambda method: method.name.startswith(OURS))
