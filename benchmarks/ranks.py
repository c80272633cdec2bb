"""Ranks with confidence, and changes beyond noise, from the values of single seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from scipy.stats import t as student

LEVEL = 0.95


@dataclass(frozen=True)
class Standing:
    """A method's place.

    Attributes:
        rank: by the mean, of logarithms where all values are positive; 1 is the best.
        best: the least rank that the seeds allow at 95%.
        worst: the greatest.
        seeds: how many values there are.
        above: the methods that are better beyond noise; none with one seed.
    """

    rank: int
    best: int
    worst: int
    seeds: int
    above: tuple[str, ...] = ()


def standings(
    values: Mapping[str, Mapping[int, float]], *, floor: float = 0.0, additive: bool = False
) -> dict[str, Standing]:
    """Ranks of methods by a figure of which less is better, each with a 95% interval.

    Seeds fix the data, so methods are compared seed by seed: one is better than another if the t-interval of their
    differences (of logarithms, where all values are positive) lies on one side of zero. Each method is compared with
    all others at once, so the levels are divided by their number (Bonferroni); its interval of ranks follows from who
    is surely better and who is surely worse. One seed says nothing about noise: the interval is then everything.

    Args:
        values: By method, by seed.
        floor: Values below it are not told from one another.
        additive: Whether differences count, and never ratios.

    Returns:
        By method, the best first.

    References:
        Mogstad, Romano, Shaikh, Wilhelm (2024), Inference for ranks, Rev. Econ. Stud. 91 (intervals from comparisons).

    Example:
        >>> found = standings({"a": {0: 1.0, 1: 1.1, 2: 0.9}, "b": {0: 9.0, 1: 9.9, 2: 8.1}})
        >>> found["a"].worst, found["b"].best
        (1, 2)
    """
    clipped = {name: {seed: max(value, floor) for seed, value in own.items()} for name, own in values.items()}
    positive = not additive and all(value > 0 for own in clipped.values() for value in own.values())
    scores = {
        name: {seed: math.log(value) if positive else value for seed, value in own.items()}
        for name, own in clipped.items()
        if own
    }
    # what shares the floor is put in the order of its values, which decides nothing but who is named first
    order = sorted(scores, key=lambda name: tuple(statistics.fmean(side[name].values()) for side in (scores, values)))
    level = 1 - (1 - LEVEL) / max(1, len(scores) - 1)
    found = {}
    for place, name in enumerate(order, 1):
        others = {other: difference(scores[name], scores[other], level=level) for other in order if other != name}
        above = tuple(other for other, interval in others.items() if interval[0] > 0)
        worst = len(order) - sum(interval[1] < 0 for interval in others.values())
        found[name] = Standing(place, min(1 + len(above), place), max(worst, place), len(scores[name]), above)
    return found


def difference(first: Mapping[int, float], second: Mapping[int, float], *, level: float = LEVEL) -> tuple[float, float]:
    """The t-interval of the mean difference first − second over common seeds; infinite with fewer than two.

    Example:
        >>> difference({0: 2.0, 1: 3.0}, {0: 1.0, 1: 2.0})
        (1.0, 1.0)
    """
    gaps = [first[seed] - second[seed] for seed in first.keys() & second.keys()]
    if len(gaps) < 2:
        return -math.inf, math.inf
    middle = statistics.fmean(gaps)
    half = float(student.ppf(0.5 + level / 2, len(gaps) - 1)) * statistics.stdev(gaps) / math.sqrt(len(gaps))
    return middle - half, middle + half
