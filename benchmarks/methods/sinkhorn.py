"""POT's entropic plan with its out-of-sample map (`ot.da.SinkhornTransport`)."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.tasks import Task
from ot_lift.methods import Method
from ot_lift.peers import SinkhornMethod


def methods(task: Task) -> Iterable[Method]:
    """It cannot end on a budget: 800 points take 10 to 18 s on two slow cores, 7,000 nearly ten minutes."""
    return [SinkhornMethod(max_points=task.points(seconds=800, minutes=7_000, quick=150))]
