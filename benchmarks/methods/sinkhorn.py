"""POT's entropic plan with its out-of-sample map (`ot.da.SinkhornTransport`)."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.tasks import Task
from ot_lift.methods import Method
from ot_lift.peers import SinkhornMethod

_SPENDING = 7_000  # points a side; about seven of ten minutes


def methods(task: Task) -> Iterable[Method]:
    """At most 2,000 points a side where a task has a cap, 7,000 where it has minutes to spend; 250 in a quick look."""
    if task.uncapped:
        return [SinkhornMethod(max_points=task.rows)]
    if task.has_minutes:
        return [SinkhornMethod(max_points=_SPENDING)]
    return [SinkhornMethod(max_points=250) if task.quick else SinkhornMethod()]
