"""POT's entropic plan with its out-of-sample map (`ot.da.SinkhornTransport`)."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.tasks import Task
from ot_lift.methods import Method
from ot_lift.peers import SinkhornMethod


def methods(task: Task) -> Iterable[Method]:
    """With 1,000 points it takes ten seconds on two slow cores, with 7,000 nearly ten minutes beside other work."""
    return [SinkhornMethod(max_points=task.points(seconds=1_000, minutes=7_000, quick=150))]
