"""The site in sentences: who wins a task, by how much, and whether it matters."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.methods import OURS
from benchmarks.metrics import Metric, by_method, level_of, mean_of, nats, quality_of
from benchmarks.ranks import Standing, standings
from ot_lift.report_words import names, number, seconds

Record = Mapping[str, Any]

BASELINE = "identity"  # it does nothing, so it wins no race
_MATTERS = 0.01  # of the target's spread: where points land nearer than this to each other, the maps are one in use

_MATTERS_NATS = 0.01  # a dimension: under it a hundred points and more are needed to tell one law from the other

_FAIR = (
    "Every method gets the same data or target, the same budget and the same threads; a method without a budget of its "
    "own is ended at the budget and its cell says so. Points that judge were seen by no fit."
)


def places(records: Sequence[Record]) -> dict[str, Standing]:
    """Standings of a task's methods by its quality."""
    metric = quality_of(records)
    return standings(by_method(records, metric.key), floor=level_of(records, metric), additive=metric.additive)


def leads(standing: Standing) -> bool:
    """Whether no other method is better beyond noise; with one seed, whether none is better.

    Example:
        >>> leads(Standing(rank=2, best=1, worst=3, seeds=3)), leads(Standing(rank=2, best=1, worst=3, seeds=1))
        (True, False)
    """
    return standing.rank == 1 or (standing.best == 1 and standing.seeds > 1)


def mean_ranks(tasks: Mapping[str, Sequence[Record]]) -> dict[str, float]:
    """Of every method over the tasks that it was run on, the least first; a failure counts as the last place.

    Args:
        tasks: Records by task.
    """
    found: dict[str, list[int]] = {}
    for records in tasks.values():
        standing = places(records)
        methods = dict.fromkeys(record["method"] for record in records)
        for name in methods:
            found.setdefault(name, []).append(standing[name].rank if name in standing else len(methods))
    means = {name: statistics.fmean(ranks) for name, ranks in found.items()}
    return dict(sorted(means.items(), key=lambda item: item[1]))


def overall(tasks: Mapping[str, Sequence[Record]]) -> list[str]:
    """Who does best over all tasks of a kind, on how many ours leads, and which peers are ahead of it where.

    Args:
        tasks: Records by task, at least one.

    Returns:
        Sentences.
    """
    ranks = mean_ranks(tasks)
    least = names([f"{name} {rank:.1f}" for name, rank in list(ranks.items())[:3]])
    told = [f"Mean rank over {len(tasks)} task{'s' * (len(tasks) > 1)}: {least}."]
    if OURS not in ranks:
        return told
    tasks = {task: records for task, records in tasks.items() if any(one["method"] == OURS for one in records)}
    ahead: dict[str, list[str]] = {}
    clear, several = 0, False
    for task, records in tasks.items():
        peers = _ahead(records)
        clear += not peers
        several = several or len({record["seed"] for record in records}) > 1
        for name in peers:
            ahead.setdefault(name, []).append(task)
    how = "beyond noise where there are several seeds" if several else "one seed: nothing is known of the noise"
    told.append(f"On {clear} of {len(tasks)} no peer is ahead of {OURS} by what matters in use ({how}).")
    if ahead:
        told.append(f"Ahead of it: {'; '.join(_on(name, own) for name, own in ahead.items())}.")
    return told


def _on(name: str, tasks: Sequence[str]) -> str:
    return f"{name} on {len(tasks)} ({', '.join(tasks)})"


def _ahead(records: Sequence[Record]) -> list[str]:
    """Peers that are better than ours on a task, beyond noise where there is more than one seed, by what matters."""
    metric = quality_of(records)
    found = places(records)
    if OURS not in found:
        return [name for name in found if not name.startswith(OURS)]
    own, values = found[OURS], by_method(records, metric.key)

    def ahead(name: str) -> bool:
        sure = found[name].worst < own.best if own.seeds > 1 else found[name].rank < own.rank
        return sure and _matters(metric, mean_of(values[name]), mean_of(values[OURS]), records)

    return [name for name in found if not name.startswith(OURS) and ahead(name)]


def _matters(metric: Metric, better: float, worse: float, records: Sequence[Record]) -> bool:
    """Whether a difference of two values of a task's quality matters in use."""
    if metric.show is nats:  # log-likelihoods have no zero: n points tell a difference of δ by a ratio of e^(nδ)
        return worse - better > _MATTERS_NATS * records[0]["settings"]["task"]["features"]
    if metric.key == "l2_uvp":
        return math.sqrt(worse / 100) - math.sqrt(better / 100) > _MATTERS
    if metric.key == "misread":
        return worse - better > _MATTERS
    return worse > level_of(records, metric)


def verdict(records: Sequence[Record]) -> list[str]:
    """Who wins a task, by how much, whether it matters, what it costs; a peer that wins is said to win.

    Args:
        records: Of one task.

    Returns:
        Sentences.
    """
    metric = quality_of(records)
    values = by_method(records, metric.key)
    if not values:
        return ["No method ended well."]
    found = places(records)
    order = list(found)
    means = {name: mean_of(values[name]) for name in order}
    return [
        _who(order, found, means, metric),
        *_by_how_much(order, found, means, metric, records),
        *_ours(order, found, means, metric),
        *_time(order, records),
        *_failures(records),
    ]


def _who(order: Sequence[str], found: Mapping[str, Standing], means: Mapping[str, float], metric: Metric) -> str:
    first = order[0]
    seeds = found[first].seeds
    told = f"{metric.title} {metric.show(means[first])}"
    if len(order) == 1:
        return f"{first} is the only method that ended well, with {told}."
    if seeds < 2:
        return f"{first} has the least {told}; with one seed nothing is known of the noise."
    tied = [name for name in order if found[name].best == 1]
    if len(tied) == 1:
        return f"{first} wins with {told}, the mean of {seeds} seeds: no other method reaches it within noise (95%)."
    least = f"the least {metric.title} is {first}'s, {metric.show(means[first])}"
    return f"{names(tied)} are not told apart over {seeds} seeds; {least}."


def _by_how_much(
    order: Sequence[str],
    found: Mapping[str, Standing],
    means: Mapping[str, float],
    metric: Metric,
    records: Sequence[Record],
) -> list[str]:
    if len(order) < 2:
        return []
    first = order[0]
    rest = [name for name in order if found[name].best > 1 and name != first] or order[1:2]
    second = rest[0]
    matters = _matters(metric, means[first], means[second], records)
    how = "which matters" if matters else "which makes no difference in use"
    more = means[second] - means[first]
    if metric.show is nats:
        least = _MATTERS_NATS * records[0]["settings"]["task"]["features"]
        return [
            f"Next is {second} with {metric.show(means[second])}, {metric.show(more)} nats a point more, {how} (more "
            f"than {number(least, 1)} does: {number(_MATTERS_NATS, 1)} a dimension)."
        ]
    times = means[second] / means[first] if means[first] > 0 else math.inf
    factor = f", {number(times, 2 if times < 100 else 3)} times as much" if times < 1e6 else ""
    told = f"Next is {second} with {metric.show(means[second])}{factor}"
    if metric.key == "l2_uvp":
        near, far = (math.sqrt(means[name] / 100) for name in (first, second))
        return [
            f"{told}: its points miss their places by {number(100 * far, 2)}% of the target's spread, those of "
            f"{first} by {number(100 * near, 2)}%, {how}."
        ]
    if metric.key == "misread":
        return [f"{told}: {number(100 * more, 2)} more of 100 points, {how}."]
    level = level_of(records, metric)
    if matters:
        return [f"{told}; {metric.reached} {number(level)}, so the difference matters."]
    return [f"{told}; both are within the {number(level)} that {metric.reached}: no difference in use."]


def _ours(order: Sequence[str], found: Mapping[str, Standing], means: Mapping[str, float], metric: Metric) -> list[str]:
    """What is said of ours where the sentences before did not praise it."""
    if OURS not in found:
        return []
    own = found[OURS]
    if own.rank == 1:
        return []
    value = f"with {metric.title} {metric.show(means[OURS])}"
    if own.seeds < 2:
        return [f"{OURS} is {_ordinal(own.rank)} of {len(order)} {value}."]
    if own.best == 1:
        return [f"{OURS} is {_ordinal(own.rank)} of {len(order)} {value}, within noise of the best."]
    told = f"{OURS} is {_ordinal(own.rank)} of {len(order)} {value}: it loses here"
    peers = [name for name in order if found[name].worst < own.best and not name.startswith(OURS)]
    return [f"{told} to {names(peers)}." if peers else f"{told} to a variant of itself."]


def _ordinal(place: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(place, f"{place}th")


def _time(order: Sequence[str], records: Sequence[Record]) -> list[str]:
    times = {name: mean_of(own) for name, own in by_method(records, "fit_seconds").items() if name != BASELINE}
    if not times:
        return ["Fit times are left out: other work ran beside every cell."]
    shown = list(dict.fromkeys(name for name in (order[0], OURS, *order) if name in times))[:3]
    return [f"Fit time: {', '.join(f'{name} {seconds(times[name])}' for name in shown)}."]


def _failures(records: Sequence[Record]) -> list[str]:
    reasons: dict[tuple[str, str, str], list[int]] = {}
    for record in records:
        if record["status"] != "ok":
            busy = " (other work shared the machine)" if record["timing"]["contended"] else ""
            key = record["method"], record["status"], record["reason"].rstrip(".") + busy
            reasons.setdefault(key, []).append(record["seed"])
    return [
        f"{method} {status} (seed {', '.join(map(str, seeds))}): {reason}."
        for (method, status, reason), seeds in reasons.items()
    ]


def surroundings(records: Sequence[Record]) -> list[str]:
    """Machine, versions, revisions, seeds and what was marked, in lines; none without records."""
    if not records:
        return []
    machines = dict.fromkeys(_machine(record["machine"]) for record in records)
    revisions = dict.fromkeys(str(record["revision"]) for record in records)
    dates = sorted(record["date"][:10] for record in records)
    contended = sum(bool(record["timing"]["contended"]) for record in records)
    well = sum(record["status"] == "ok" for record in records)
    span = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    return [
        f"{len(records)} cells, {well} of which ended well; {seeds_told(records)}; {span}.",
        *machines,
        f"Code at {names(list(revisions))}.",
        f"Times of {contended} cells are marked and left out: other work shared the machine."
        if contended
        else "Nothing ran beside a cell that was timed, as far as the system tells.",
        *([_FAIR] if any("experiment" not in record["settings"]["task"] for record in records) else []),
    ]


def seeds_told(records: Sequence[Record]) -> str:
    """Seeds of records, in words.

    Example:
        >>> seeds_told([{"seed": 0}]), seeds_told([{"seed": 2}, {"seed": 0}, {"seed": 2}, {"seed": 1}])
        ('seed 0', 'seeds 0, 1 and 2')
    """
    seeds = sorted({record["seed"] for record in records})
    return f"seed{'s' * (len(seeds) > 1)} {names([str(seed) for seed in seeds])}"


def _machine(machine: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {machine[name]}" for name in ("torch", "numpy", "pot", "python"))
    peers = ", ".join(f"{name} {version}" for name, version in machine.get("peers", {}).items())
    versions = f"{versions}, {peers}" if peers else versions
    threads = f"{machine['threads']} thread{'s' * (machine['threads'] > 1)} a method"
    return f"{machine['cpu']}, {machine['cores']} cores, {threads}; {machine['platform']}; {versions}."
