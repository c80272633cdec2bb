"""POT's exact discrete plan with its out-of-sample map (`ot.da.EMDTransport`)."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.tasks import Task
from ot_lift.methods import Method
from ot_lift.peers import EMDMethod


def methods(task: Task) -> Iterable[Method]:
    """At its default settings: at most 4,000 points a side, where a task has a cap."""
    return [EMDMethod(max_points=task.rows) if task.uncapped else EMDMethod()]
