"""What is measured of one method, in the process that fits it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ot_lift.discrete import import_pot
from ot_lift.errors import ConvergenceError, DataError
from ot_lift.isolation import PeakMemory, Phases, captured
from ot_lift.methods import Method

__all__ = ["Job", "measure"]

Array = npt.NDArray[Any]

_MAPPED_BYTES = 1 << 28  # training files above this are memory-mapped
_ROUND_TRIP_POINTS = 1000
_TIMED_POINTS = 100_000
_SLOW_SECONDS = 10.0  # a method that takes longer for the held-out points is timed on a few of them


@dataclass(frozen=True)
class Job:
    """One method's work: the folder with the data (.npy) and the settings that are the same for every method."""

    folder: Path
    phases: Phases
    random_state: int
    max_seconds: float | None
    alone: bool  # in a process of its own
    timing_seconds: float = 1.0  # of each of three timings of a transport, about

    def load(self, name: str) -> Array | None:
        """The array of that name, if the comparison has it."""
        path = self.folder / f"{name}.npy"
        if not path.exists():
            return None
        return np.load(path, mmap_mode="r" if path.stat().st_size > _MAPPED_BYTES else None)


def measure(method: Method, job: Job) -> dict[str, Any]:
    """Fit, transport, invert and time one method; a failure is an answer (its `reason`), not an exception."""
    found: dict[str, Any] = {}
    with captured(descriptors=job.alone) as messages:
        try:
            _measure(method, job, found)
        except Exception as error:  # whatever a method raises is its row in the table
            found["reason"] = f"{type(error).__name__}: {error}"
    return {
        **found,
        "settings": dict(method.settings),
        "notes": [*method.notes, *found.get("notes", ())],
        "messages": messages.lines,
    }


def _measure(method: Method, job: Job, found: dict[str, Any]) -> None:
    import_pot()  # so that no method's time or memory includes it
    x, y, held_out = (job.load(name) for name in ("source", "target", "held_out"))
    assert x is not None and y is not None and held_out is not None
    memory = PeakMemory()
    memory.start()
    job.phases.reach("start")
    began = time.perf_counter()
    method.fit(x, y, random_state=job.random_state, max_seconds=job.max_seconds)
    found["fit_seconds"] = time.perf_counter() - began
    job.phases.reach("fit")
    began = time.perf_counter()
    image = _transported(method, held_out)
    first = time.perf_counter() - began
    found["peak_memory_bytes"] = memory.grown()
    np.save(job.folder / "transported.npy", image)
    found["notes"] = []
    found["round_trip"] = _round_trip(method, held_out, image, found["notes"])
    found["transport_seconds"], found["transport_seconds_range"] = _time_transport(method, held_out, first, job)
    if (more := job.load("also")) is not None:
        np.save(job.folder / "also_transported.npy", _transported(method, more))
    if value := method.w2_squared():
        found["w2_squared"] = value.value
        found["w2_squared_basis"] = value.basis
        found["w2_squared_lower"], found["w2_squared_upper"] = value.lower, value.upper
    found["details"] = method.details()


def _transported(method: Method, points: Array) -> Array:
    image = np.asarray(method.transport(points))
    if image.shape != points.shape:
        raise DataError(f"expected transported points of shape {points.shape}, got {image.shape}")
    if bad := int((~np.isfinite(image).all(1)).sum()):
        raise DataError(f"{bad} of {len(image)} transported points are not finite")
    return image


def _round_trip(method: Method, points: Array, image: Array, notes: list[str]) -> float | None:
    """Root mean square of ‖T⁻¹(T(x)) − x‖, or None without an inverse."""
    few = points[:_ROUND_TRIP_POINTS]
    try:
        back = method.invert(image[:_ROUND_TRIP_POINTS])
    except ConvergenceError as error:
        notes.append(f"the inverse failed: {error}")
        return None
    if back is None:
        return None
    return float(np.sqrt(np.square(np.asarray(back, dtype=np.float64) - few).sum(1).mean()))


def _time_transport(method: Method, points: Array, first: float, job: Job) -> tuple[float, tuple[float, float]]:
    """Seconds per 100,000 points: the median and the range of three timings, on held-out points drawn again.

    The `first` call took so many seconds for all points, which may count a compilation: a fast method is called again.
    """

    def seconds(rows: Array) -> float:
        began = time.perf_counter()
        method.transport(rows)
        return max(time.perf_counter() - began, 1e-9)

    slow = first > _SLOW_SECONDS
    rate = (first if slow else seconds(points)) / len(points)
    size = int(np.clip(job.timing_seconds / rate, 1 if slow else len(points), _TIMED_POINTS))
    rows = points[np.random.default_rng(job.random_state).integers(len(points), size=size)]
    times = sorted(_TIMED_POINTS / size * seconds(rows) for _ in range(3))
    return times[1], (times[0], times[2])
