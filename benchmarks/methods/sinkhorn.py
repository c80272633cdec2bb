"""POT's entropic plan with its out-of-sample map (`ot.da.SinkhornTransport`)."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.tasks import Task
from ot_lift.methods import Method
from ot_lift.peers import SinkhornMethod


def methods(task: Task) -> Iterable[Method]:
    """At its default settings: at most 2,000 points a side, where a task has a cap; 250 in a quick look."""
    if task.uncapped:
        return [SinkhornMethod(max_points=task.rows)]
    return [SinkhornMethod(max_points=250) if task.quick else SinkhornMethod()]
