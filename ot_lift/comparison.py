"""The record of a comparison: a row for each method, the winners, and the split they were judged on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Comparison", "MethodResult"]

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class MethodResult:
    """One method's row. Figures are on held-out points, in data units; None where a method has no such figure.

    Attributes:
        name: The method's name.
        status: "ok" or "failed".
        reason: Why it failed; empty if it did not.
        energy: Energy distance of transported points to the target; `Comparison.energy_null` is its noise level.
        sliced_w2: Sliced W2 (the root) likewise.
        transport_cost: Mean ‖x − T(x)‖². Small is good only for a map whose image is the target.
        transport_cost_error: Its standard error.
        w2_squared: The method's own value of W2².
        w2_squared_lower: Its one-sided 95% lower limit.
        w2_squared_upper: Its one-sided 95% upper limit.
        w2_squared_basis: What that value is, and on which points.
        round_trip: Root mean square ‖T⁻¹(T(x)) − x‖.
        fit_seconds: Wall-clock time of the fit.
        transport_seconds: Median time for 100,000 points.
        transport_seconds_range: Least and greatest of three timings.
        peak_memory_bytes: See `Comparison.memory_method`.
        settings: What the method was run with.
        notes: What it had to do, such as cap its points.
        messages: What it printed or warned.
        details: Training history and certificate, where there are any.
        transported: Images of `Comparison.source_points`.
        also_transported: Images of the points given as `also_transport`.
    """

    name: str
    status: str = "ok"
    reason: str = ""
    energy: float | None = None
    sliced_w2: float | None = None
    transport_cost: float | None = None
    transport_cost_error: float | None = None
    w2_squared: float | None = None
    w2_squared_lower: float | None = None
    w2_squared_upper: float | None = None
    w2_squared_basis: str = ""
    round_trip: float | None = None
    fit_seconds: float | None = None
    transport_seconds: float | None = None
    transport_seconds_range: tuple[float, float] | None = None
    peak_memory_bytes: int | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    transported: Array | None = dataclasses.field(default=None, repr=False, compare=False)
    also_transported: Array | None = dataclasses.field(default=None, repr=False, compare=False)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Every method on one split. No row is left out: a failure is a row with its reason.

    Attributes:
        results: A row for each method, in the order given.
        winners: By figure, the methods that no other beats beyond noise, the least value first.
        energy_null: 95% level of `energy` between two halves of the held-out target of the same size.
        sliced_w2_null: Likewise for `sliced_w2`.
        pushforward_points: Points a side behind `energy` and `sliced_w2`.
        sample_w2_squared: Exact W2² between held-out source and target points: an upper bound in expectation.
        sample_w2_squared_error: Its standard error.
        n_source: Source points given.
        n_target: Target points given.
        features: Columns.
        held_out: Share held out.
        n_held_out: Held-out points judged, (source, target).
        random_state: Seed of the split and of every method.
        memory_method: How memory was measured.
        environment: Versions, cores and threads.
        source_points: Held-out source points for plots, `(k, features)`.
        target_points: Held-out target points for plots.
    """

    results: tuple[MethodResult, ...]
    winners: Mapping[str, tuple[str, ...]]
    energy_null: float
    sliced_w2_null: float
    pushforward_points: int
    sample_w2_squared: float
    sample_w2_squared_error: float
    n_source: int
    n_target: int
    features: int
    held_out: float
    n_held_out: tuple[int, int]
    random_state: int
    max_seconds: float | None
    memory_method: str
    environment: Mapping[str, Any]
    source_points: Array = dataclasses.field(repr=False, compare=False)
    target_points: Array = dataclasses.field(repr=False, compare=False)

    def __getitem__(self, name: str) -> MethodResult:
        """The row of the method of that name."""
        for result in self.results:
            if result.name == name:
                return result
        raise KeyError(f"no method {name!r} in this comparison; it has {[one.name for one in self.results]}")

    def to_dict(self, *, points: bool = False) -> dict[str, Any]:
        """The record as JSON types.

        Args:
            points: Include the held-out and transported points (for plots), as nested lists.
        """
        return _plain(dataclasses.asdict(self), points=points)


def _plain(value: Any, *, points: bool) -> Any:
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if points or not isinstance(v, np.ndarray)}
        return {k: _plain(v, points=points) for k, v in kept.items() if k != "also_transported"}
    if isinstance(value, list | tuple):
        return [_plain(item, points=points) for item in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
