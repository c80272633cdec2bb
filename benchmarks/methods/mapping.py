"""POT's joint fit of a plan and a kernel map (`ot.da.MappingTransport`)."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.tasks import Task
from ot_lift.methods import Method
from ot_lift.peers import MappingMethod


def methods(task: Task) -> Iterable[Method]:
    """At its default settings: at most 500 points a side, 100 in a quick look."""
    return [MappingMethod(max_points=100) if task.quick else MappingMethod()]
