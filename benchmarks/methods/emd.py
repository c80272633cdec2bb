"""POT's exact discrete plan with its out-of-sample map (`ot.da.EMDTransport`)."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.tasks import Task
from ot_lift.methods import Method
from ot_lift.peers import EMDMethod


def methods(task: Task) -> Iterable[Method]:
    """With 12,000 points it takes about a minute, and 6 GB; with 4,000 up to 18 seconds on two slow cores."""
    return [EMDMethod(max_points=task.points(seconds=3_000, minutes=12_000, quick=500))]
