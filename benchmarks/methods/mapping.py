"""POT's joint fit of a plan and a kernel map (`ot.da.MappingTransport`)."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.tasks import Task
from ot_lift.methods import Method
from ot_lift.peers import MappingMethod

_SPENDING = 1_500  # points a side; about four of ten minutes


def methods(task: Task) -> Iterable[Method]:
    """At most 500 points a side, 1,500 where a task has minutes to spend, 100 in a quick look."""
    if task.has_minutes:
        return [MappingMethod(max_points=_SPENDING)]
    return [MappingMethod(max_points=100) if task.quick else MappingMethod()]
