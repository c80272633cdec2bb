"""The figures of a cell: names, how they are shown, which way is better, and what counts as a change."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
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


def nats(value: float | None) -> str:
    """A log-likelihood, where hundredths count whatever its size.

    Example:
        >>> nats(-31.2344), nats(None)
        ('-31.234', '–')
    """
    return "–" if value is None else f"{value:.3f}"


@dataclass(frozen=True)
class Metric:
    """A figure.

    Attributes:
        key: in a record's `figures`.
        title: in a heading.
        show: a value as text.
        better: −1 where less is better, 1 where more is, 0 where neither.
        tolerance: a relative change up to it is none; of additive figures, an absolute one.
        floor: values below it are not told from one another; in the figure's units.
        additive: whether differences count and not ratios: the figure has no zero that means something.
        timed: whether it is time, which counts only where nothing ran beside the cell.
        null: key of its noise level, where it has one.
        reached: who reaches the noise level, in words.
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
    reached: str = "two halves of the target reach"
    note: str = ""
    additive: bool = False

    @property
    def race(self) -> bool:
        """Whether it is won without a map: a method that does nothing takes no part."""
        return self.timed or self.key in ("cost_ratio", "monotonicity_violations", "round_trip", "peak_memory_bytes")


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
        *("excess", "NLL above the truth's", nats, -1, 0.1, 1e-3),
        note="Mean log-density of the true law less that of the fitted one on the same points, nats: 0 is the truth.",
    ),
    Metric(
        *("nll", "held-out NLL", nats, -1, 0.02, -math.inf),
        additive=True,
        note="Mean negative log-density of points that no fit saw, nats.",
    ),
    Metric(*("nll_error", "its standard error", nats, 0), note="Of the held-out NLL, over the points, nats."),
    Metric(
        *("two_sample", "two-sample accuracy", share, -1, 0.05, 0.5),
        null="two_sample_null",
        reached="samples of one law reach",
        note=(
            "Of boosted trees at telling draws from points that no fit saw, cross-validated; one half where they "
            "cannot (Lopez-Paz and Oquab 2017, arXiv 1610.06545)."
        ),
    ),
    Metric(
        *("moment_error", "largest error", number, -1),
        null="moment_error_null",
        reached="independent draws of the posterior itself reach",
        note="The larger of the two that follow: what the worst mean or standard deviation is off by.",
    ),
    Metric(
        *("mean_error", "of a mean", number, -1, 0.05, 0.01),
        note="Largest error of the mean of any quantity, in posterior standard deviations.",
    ),
    Metric(
        *("sd_error", "of a deviation", number, -1, 0.05, 0.01),
        note="Largest relative error of the standard deviation of any quantity.",
    ),
    Metric(
        *("k_hat", "k-hat", number, -1, 0.1, 0.7),
        additive=True,
        reached="importance weighting allows",
        note=(
            "Shape of the tail of importance weights; above 0.7 they are not to be relied on (Vehtari et al. 2024, "
            "arXiv 1507.02646). A dash where a method has no density."
        ),
    ),
    Metric(
        *("importance_share", "importance ESS", share, 1, 0.05, 1e-3),
        note="Of the draws: how many of them importance weights leave.",
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
    Metric(
        *("fit_compiled_seconds", "fit, compiled", seconds, -1, 0.2, 0.05),
        timed=True,
        note="Likewise, less what a compiler took.",
    ),
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
    Metric(*("score_seconds", "score", seconds, -1, 0.2, 0.01), timed=True, note="Log-densities of 10,000 points."),
    Metric(*("sample_seconds", "sample", seconds, -1, 0.2, 0.01), timed=True, note="10,000 draws."),
    Metric(
        *("effective_seconds", "1,000 effective draws", seconds, -1, 0.2, 1e-5),
        timed=True,
        note="After the fit: of independent draws by their importance ESS, of a chain by its least bulk ESS.",
    ),
    Metric(
        *("peak_memory_bytes", "memory", size, -1, 0.1, 1e7),
        note="The most that the fit and its use added to what the process held with its data loaded.",
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


def usual_processor(records: Iterable[Mapping[str, Any]]) -> str:
    """The processor that most of the cells ran on; of several the first by name.

    Example:
        >>> usual_processor([{"machine": {"cpu": cpu}} for cpu in "BABCB"])
        'B'
    """
    cells = Counter(str(record["machine"]["cpu"]) for record in records)
    return min(cells, key=lambda cpu: (-cells[cpu], cpu))


def comparable(records: Sequence[Mapping[str, Any]], key: str) -> Sequence[Mapping[str, Any]]:
    """Those whose figure may be held against each other's: of a time those of the usual processor, else all.

    Args:
        records: Of one task, or of one line of sizes.
        key: Of the figure.
    """
    if not records or key not in BY_KEY or not BY_KEY[key].timed:
        return records
    usual = usual_processor(records)
    return [record for record in records if record["machine"]["cpu"] == usual]


def by_method(records: Sequence[Mapping[str, Any]], key: str) -> dict[str, dict[int, float]]:
    """Values by method and seed, of those that are `comparable`."""
    found: dict[str, dict[int, float]] = {}
    for record in comparable(records, key):
        if (value := figure_of(record, key)) is not None:
            found.setdefault(record["method"], {})[record["seed"]] = value
    return found


_DECIDE: Mapping[str, tuple[str, ...]] = {
    "map": ("l2_uvp", "misread", "energy"),
    "density": ("excess", "nll"),
    "posterior": ("moment_error", "k_hat"),
}


def kind_of(records: Sequence[Mapping[str, Any]]) -> str:
    """The kind of task that records are of: "map", "density" or "posterior".

    Example:
        >>> kind_of([{"settings": {"task": {"kind": "density"}}}]), kind_of([{"settings": {"task": {}}}])
        ('density', 'map')
    """
    return str(records[0]["settings"]["task"].get("kind", "map"))


def quality_of(records: Sequence[Mapping[str, Any]]) -> Metric:
    """What decides who wins, by the kind of task; the first figure that the records have.

    Of maps L2-UVP where the true map is known, else misread classes, else the energy distance; of densities the
    negative log-likelihood above the truth's where that is known, else the negative log-likelihood; of posteriors the
    largest error of a moment where there is a reference, else k-hat.
    """
    known = {key for record in records for key in record["figures"]}
    keys = _DECIDE[kind_of(records)]
    return BY_KEY[next((key for key in keys if key in known), keys[-1])]


def level_of(records: Iterable[Mapping[str, Any]], metric: Metric) -> float:
    """Below it values are not told from one another: the null level where there is one, else the metric's floor."""
    nulls = [float(record["figures"][metric.null]) for record in records if metric.null in record["figures"]]
    return max([metric.floor, *nulls])


def mean_of(values: Mapping[int, float]) -> float:
    """Over seeds."""
    return statistics.fmean(values.values())
