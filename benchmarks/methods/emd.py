"""POT's exact discrete plan with its out-of-sample map (`ot.da.EMDTransport`)."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.tasks import Task
from ot_lift.methods import Method
from ot_lift.peers import EMDMethod

_SPENDING = 12_000  # points a side; about two of ten minutes, and 5 GB


def methods(task: Task) -> Iterable[Method]:
    """At most 4,000 points a side where a task has a cap, 12,000 where it has minutes to spend."""
    if task.uncapped:
        return [EMDMethod(max_points=task.rows)]
    return [EMDMethod(max_points=_SPENDING) if task.has_minutes else EMDMethod()]
