"""The figures of a cell: names, how they are shown, which way is better, and what counts as a change."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ot_lift.report_words import number, seconds, size


def percent(value: float | None) -> str:
    """A number that is in percent already.

    Example:
        >>> percent(0.1234), percent(None)
        ('0.123%', '–')
    """
    return "–" if value is None else f"{number(value)}%"


def share(value: float | None) -> str:
    """A share as percent.

    Example:
        >>> share(0.25)
        '25.0%'
    """
    return "–" if value is None else percent(100 * value)


@dataclass(frozen=True)
class Metric:
    """A figure.

    Attributes:
        key: in a record's `figures`.
        title: in a heading.
        show: a value as text.
        better: −1 where less is better, 1 where more is, 0 where neither.
        tolerance: a relative change up to it is none.
        floor: values below it are not told from one another; in the figure's units.
        timed: whether it is time, which counts only where nothing ran beside the cell.
        null: key of its noise level, where it has one.
        note: what it is, in a sentence.
    """

    key: str
    title: str
    show: Callable[[float | None], str]
    better: int
    tolerance: float = 0.05
    floor: float = 0.0
    timed: bool = False
    null: str | None = None
    note: str = ""

    @property
    def race(self) -> bool:
        """Whether it is won without a map: a method that does nothing takes no part."""
        return self.key not in ("l2_uvp", "cosine", "misread", "energy", "sliced_w2", "total_variation")


METRICS = (
    Metric(
        *("l2_uvp", "L2-UVP", percent, -1, 0.05, 1e-4),
        note="100·E‖T̂ − T‖² over the target's variance: 0 is the true map, 100 the constant one.",
    ),
    Metric("cosine", "cosine", number, 1, 0.05, 1e-6, note="Between the displacements of the map and of the true map."),
    Metric(
        *("misread", "misread", share, -1, 0.05, 1e-3),
        note="Share of target points whose class is not that of the nearest transported source point.",
    ),
    Metric(
        *("total_variation", "total variation", number, -1, 0.1, 1e-4),
        note="½∫|p − q| between the true density and the fitted one.",
    ),
    Metric(
        *("energy", "energy distance", number, -1),
        null="energy_null",
        note="Of transported points to the target; below its null level they cannot be told from it.",
    ),
    Metric("sliced_w2", "sliced W2", number, -1, null="sliced_w2_null", note="Likewise, in data units."),
    Metric(
        *("cost_ratio", "cost over EMD", number, 0),
        note=(
            "Mean ‖x − T(x)‖² over W2² of the same source points and as many target points by exact transport. Under 1 "
            "the map falls short; the exact value of few points in many dimensions is itself too large."
        ),
    ),
    Metric(
        *("monotonicity_violations", "not monotone", share, -1, 0.1, 1e-4),
        note="Share of pairs with ⟨T(x) − T(x'), x − x'⟩ < 0. An optimal map has none.",
    ),
    Metric(
        *("round_trip", "round trip", number, -1, 0.5, 1e-5),
        note="Root mean square of ‖T⁻¹(T(x)) − x‖ in data units; a dash where a method has no inverse.",
    ),
    Metric("fit_seconds", "fit", seconds, -1, 0.2, 0.05, timed=True, note="Wall-clock time."),
    Metric("fit_cpu_seconds", "fit, CPU", seconds, -1, 0.2, 0.05, timed=True, note="Of all threads together."),
    Metric(
        *("transport_seconds", "transport", seconds, -1, 0.2, 0.01),
        timed=True,
        note="Of 100,000 points, the median of three timings.",
    ),
    Metric(
        *("invert_seconds", "invert", seconds, -1, 0.2, 0.01),
        timed=True,
        note="Of 1,000 points; a dash where a method has no inverse.",
    ),
    Metric(
        *("peak_memory_bytes", "memory", size, -1, 0.1, 1e7),
        note="The most that fit and transport added to what the process held with its data loaded.",
    ),
)
BY_KEY = {metric.key: metric for metric in METRICS}


def figure_of(record: Mapping[str, Any], key: str) -> float | None:
    """A figure of a record that ended well; None where it has none, and for a time that does not count.

    Example:
        >>> figure_of({"status": "ok", "figures": {"transport_cost": 3.0, "emd_w2_squared": 4.0}}, "cost_ratio")
        0.75
    """
    if record["status"] != "ok":
        return None
    figures = record["figures"]
    if key == "cost_ratio":
        cost, exact = figures.get("transport_cost"), figures.get("emd_w2_squared")
        return cost / exact if cost is not None and exact else None
    if key in BY_KEY and BY_KEY[key].timed and record["timing"]["contended"]:
        return None
    value = figures.get(key)
    return None if value is None else float(value)


def by_method(records: Iterable[Mapping[str, Any]], key: str) -> dict[str, dict[int, float]]:
    """Values by method and seed."""
    found: dict[str, dict[int, float]] = {}
    for record in records:
        if (value := figure_of(record, key)) is not None:
            found.setdefault(record["method"], {})[record["seed"]] = value
    return found


def quality_of(records: Iterable[Mapping[str, Any]]) -> Metric:
    """What decides who wins: L2-UVP where the true map is known, else misread classes, else the energy distance."""
    known = {key for record in records for key in record["figures"]}
    return next(BY_KEY[key] for key in ("l2_uvp", "misread", "energy") if key in known or key == "energy")


def level_of(records: Iterable[Mapping[str, Any]], metric: Metric) -> float:
    """Below it values are not told from one another: the null level where there is one, else the metric's floor."""
    nulls = [float(record["figures"][metric.null]) for record in records if metric.null in record["figures"]]
    return max([metric.floor, *nulls])


def mean_of(values: Mapping[int, float]) -> float:
    """Over seeds."""
    return statistics.fmean(values.values())
