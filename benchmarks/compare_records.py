"""What got better or worse between two sets of records, beyond noise."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.metrics import METRICS, Metric, figure_of
from benchmarks.ranks import difference

Record = Mapping[str, Any]

_LEVEL = 0.99  # of each change: there are many of them
_SINGLE_SEED = 3.0  # times the tolerance, where one seed leaves the noise unknown
_SAME_MACHINE = ("cpu", "cores", "threads", "accelerator")


@dataclass(frozen=True)
class Change:
    """A figure of one task and method in both sets.

    Attributes:
        task: its name.
        method: its name.
        figure: its title.
        before: mean over the common seeds, as text.
        after: likewise.
        seeds: how many there are.
        verdict: "better", "worse" or "same".
    """

    task: str
    method: str
    figure: str
    before: str
    after: str
    seeds: int
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Two sets of records side by side.

    Attributes:
        changes: of every figure that both have.
        notes: what could not be compared, in sentences.
    """

    changes: tuple[Change, ...]
    notes: tuple[str, ...]

    def of(self, verdict: str) -> list[Change]:
        """The changes with that verdict."""
        return [change for change in self.changes if change.verdict == verdict]


def compare_records(before: Sequence[Record], after: Sequence[Record]) -> Comparison:
    """Compare two sets cell by cell.

    A figure is better or worse if its mean over common seeds moved by more than the figure's tolerance, and the 99%
    t-interval of the paired differences excludes zero. With one common seed nothing is known of the noise: the change
    must then be three times the tolerance. Times count where nothing ran beside the cells and the machines agree. A
    cell that ended well before and does not now is worse.

    Args:
        before: Records of cells.
        after: Likewise.

    Returns:
        Changes and notes, by task, method and figure.
    """
    first, second = (_grouped(records) for records in (before, after))
    changes: list[Change] = []
    notes: list[str] = []
    for key in first.keys() | second.keys():
        task, method = key
        if key not in first or key not in second:
            notes.append(f"{task} × {method}: only in the {'first' if key in first else 'second'} set")
            continue
        seeds = sorted(first[key].keys() & second[key].keys())
        if not seeds:
            notes.append(f"{task} × {method}: no common seed")
            continue
        pairs = {seed: (first[key][seed], second[key][seed]) for seed in seeds}
        if any(a["fingerprint"] != b["fingerprint"] for a, b in pairs.values()):
            notes.append(f"{task} × {method}: settings differ")
        changes += _ends(task, method, pairs)
        changes += _figures(task, method, pairs, notes)
    return Comparison(tuple(sorted(changes, key=lambda one: (one.task, one.method))), tuple(sorted(notes)))


def _grouped(records: Iterable[Record]) -> dict[tuple[str, str], dict[int, Record]]:
    found: dict[tuple[str, str], dict[int, Record]] = {}
    for record in records:
        found.setdefault((record["task"], record["method"]), {})[record["seed"]] = record
    return found


def _ends(task: str, method: str, pairs: Mapping[int, tuple[Record, Record]]) -> list[Change]:
    """How many cells ended well."""
    before, after = (sum(pair[side]["status"] == "ok" for pair in pairs.values()) for side in (0, 1))
    if before == after:
        return []
    first, second = (f"{count} of {len(pairs)}" for count in (before, after))
    kind = "better" if after > before else "worse"
    return [Change(task, method, "cells that ended well", first, second, len(pairs), kind)]


def _figures(task: str, method: str, pairs: Mapping[int, tuple[Record, Record]], notes: list[str]) -> list[Change]:
    found = []
    same_machine = all(
        a["machine"].get(key) == b["machine"].get(key) for a, b in pairs.values() for key in _SAME_MACHINE
    )
    well = {seed: pair for seed, pair in pairs.items() if all(one["status"] == "ok" for one in pair)}
    if well and not same_machine:
        notes.append(f"{task} × {method}: times left out, the machines differ")
    elif any(one["timing"]["contended"] for pair in well.values() for one in pair):
        notes.append(f"{task} × {method}: times of some seeds left out, other work ran beside them")
    for metric in METRICS:
        if metric.better == 0 or (metric.timed and not same_machine):
            continue
        values = {seed: (figure_of(a, metric.key), figure_of(b, metric.key)) for seed, (a, b) in well.items()}
        both = {seed: (a, b) for seed, (a, b) in values.items() if a is not None and b is not None}
        if both:
            found.append(_change(task, method, metric, both))
    return found


def _change(task: str, method: str, metric: Metric, values: Mapping[int, tuple[float, float]]) -> Change:
    before, after = ({seed: pair[side] for seed, pair in values.items()} for side in (0, 1))
    first, second = (metric.show(statistics.fmean(side.values())) for side in (before, after))
    return Change(task, method, metric.title, first, second, len(values), verdict(before, after, metric))


def verdict(before: Mapping[int, float], after: Mapping[int, float], metric: Metric) -> str:
    """Whether a figure got "better", "worse" or stayed the "same".

    Args:
        before: By seed.
        after: By the same seeds.
        metric: Which way is better, and what counts.

    Example:
        >>> from benchmarks.metrics import BY_KEY
        >>> verdict({0: 1.0, 1: 1.1}, {0: 2.0, 1: 2.2}, BY_KEY["l2_uvp"])
        'worse'
        >>> verdict({0: 1.0, 1: 1.1}, {0: 1.01, 1: 1.08}, BY_KEY["l2_uvp"])
        'same'
    """
    score = {side: _scores(values, metric) for side, values in (("before", before), ("after", after))}
    gap = statistics.fmean(score["after"].values()) - statistics.fmean(score["before"].values())
    tolerance = metric.tolerance if metric.additive else math.log1p(metric.tolerance)
    if len(before) < 2:
        beyond = abs(gap) > _SINGLE_SEED * tolerance
    else:
        low, high = difference(score["after"], score["before"], level=_LEVEL)
        beyond = abs(gap) > tolerance and (low > 0 or high < 0)
    if not beyond:
        return "same"
    return "worse" if gap > 0 else "better"


def _scores(values: Mapping[int, float], metric: Metric) -> dict[int, float]:
    """What should be small: logarithms, never under the floor; of 1 − value where more is better (a cosine)."""
    if metric.additive:
        return {seed: -metric.better * value for seed, value in values.items()}
    floor = metric.floor or 1e-12
    amounts = values if metric.better < 0 else {seed: 1 - value for seed, value in values.items()}
    return {seed: math.log(max(amount, floor)) for seed, amount in amounts.items()}
