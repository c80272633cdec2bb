"""The optimal map between Gaussians with the data's moments (`ot.da.LinearTransport`)."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.tasks import Task
from ot_lift.methods import Method
from ot_lift.peers import LinearMethod


def methods(task: Task) -> Iterable[Method]:
    """At its default settings."""
    return [LinearMethod()]
