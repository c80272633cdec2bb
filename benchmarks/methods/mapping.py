"""POT's joint fit of a plan and a kernel map (`ot.da.MappingTransport`)."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.tasks import Task
from ot_lift.methods import Method
from ot_lift.peers import MappingMethod


def methods(task: Task) -> Iterable[Method]:
    """With 1,500 points it takes about two minutes; where the cost is the question it has nothing to say.

    With 500 points it took 9 seconds to more than 20 on two slow cores.
    """
    if task.uncapped:
        return []
    return [MappingMethod(max_points=task.points(seconds=300, minutes=1_500, quick=100))]
