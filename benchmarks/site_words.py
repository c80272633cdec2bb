"""The site in sentences: who wins a task, by how much, and whether it matters."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.methods import OURS
from benchmarks.metrics import Metric, by_method, level_of, mean_of, nats, quality_of, usual_processor
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
_OVER = 1.1  # budgets; a fit that took less kept to it


def compared(records: Sequence[Record]) -> list[str]:
    """The methods that are ranked on a task: those run on several seeds where there are such, else all.

    A seed fixes the data, and one may be easy: the mean over three of them is not held against a single one.
    """
    tried = {name: {one["seed"] for one in records if one["method"] == name} for name in _methods(records)}
    return [name for name, seeds in tried.items() if len(seeds) > 1] or list(tried)


def _methods(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(record["method"] for record in records))


def places(records: Sequence[Record]) -> dict[str, Standing]:
    """Standings of a task's methods by its quality, of those that are `compared`."""
    metric, ranked = quality_of(records), compared(records)
    values = {name: own for name, own in by_method(records, metric.key).items() if name in ranked}
    return standings(values, floor=level_of(records, metric), additive=metric.additive)


def leads(standing: Standing) -> bool:
    """Whether no other method is better beyond noise; with one seed, whether none is better.

    Example:
        >>> leads(Standing(rank=2, best=1, worst=3, seeds=3)), leads(Standing(rank=2, best=1, worst=3, seeds=1))
        (True, False)
    """
    return standing.rank == 1 or (standing.best == 1 and standing.seeds > 1)


def caption(records: Sequence[Record]) -> str:
    """What the figures of a task's table are."""
    told = "Mean and standard deviation over seeds, on points that no fit saw. Bold: not beaten beyond noise."
    if not quality_of(records).additive:
        told += " Ranks go by ratios: a small figure counts as much as a large one."
    if len(compared(records)) < len(_methods(records)):
        told += " What has one seed where others have several is not ranked."
    return told


def mean_ranks(tasks: Mapping[str, Sequence[Record]]) -> dict[str, float]:
    """Of every method over the tasks that it is `compared` on, the least first; a failure counts as the last place.

    Only of those compared on half of the tasks or more: a mean over a few others is no mean to hold against.

    Args:
        tasks: Records by task.
    """
    found: dict[str, list[int]] = {}
    for records in tasks.values():
        standing = places(records)
        methods = compared(records)
        for name in methods:
            found.setdefault(name, []).append(standing[name].rank if name in standing else len(methods))
    means = {name: statistics.fmean(ranks) for name, ranks in found.items() if 2 * len(ranks) >= len(tasks)}
    return dict(sorted(means.items(), key=lambda item: item[1]))


def overall(tasks: Mapping[str, Sequence[Record]]) -> list[str]:
    """Who does best over all tasks of a kind, on how many ours leads, and which peers are ahead of it where.

    Args:
        tasks: Records by task, at least one.

    Returns:
        Sentences.
    """
    ranks = mean_ranks(tasks)
    variants = [name for name in ranks if name.startswith(OURS) and name != OURS]
    least = [name for name in ranks if name not in variants][:3]
    beside = f"; variants of ours: {_with_ranks(variants, ranks)}" if variants else ""
    many = f"{len(tasks)} task{'s' * (len(tasks) > 1)}"
    told = [f"Mean rank over {many}: {_with_ranks(least, ranks)}{beside}."] if least else []
    if OURS not in ranks:
        return told
    tasks = {task: records for task, records in tasks.items() if OURS in compared(records)}
    ahead = {task: _ahead(records) for task, records in tasks.items()}
    clear = sum(not peers for peers in ahead.values())
    told.append(f"On {clear} of {len(tasks)} no peer's mean is ahead of {OURS}'s by what matters in use.")
    if any(ahead.values()):
        told.append(f"Ahead of it: {_by_peer(ahead)}.")
        told.append(_beyond_noise(tasks, ahead))
    return told


def _with_ranks(methods: Sequence[str], ranks: Mapping[str, float]) -> str:
    return names([f"{name} {ranks[name]:.1f}" for name in methods])


def _by_peer(ahead: Mapping[str, Sequence[str]]) -> str:
    """Peers by task, told as tasks by peer."""
    found: dict[str, list[str]] = {}
    for task, peers in ahead.items():
        for name in peers:
            found.setdefault(name, []).append(task)
    return "; ".join(f"{name} on {len(own)} ({', '.join(own)})" for name, own in found.items())


def _beyond_noise(tasks: Mapping[str, Sequence[Record]], ahead: Mapping[str, Sequence[str]]) -> str:
    """Which of the peers that are ahead are so beyond the noise of the seeds."""
    standing = {task: places(tasks[task]).get(OURS) for task, peers in ahead.items() if peers}
    sure = {task: [name for name in ahead[task] if own and name in own.above] for task, own in standing.items()}
    if any(sure.values()):
        return f"Of these, beyond the noise of the seeds (95%): {_by_peer(sure)}."
    if any(own and own.seeds > 1 for own in standing.values()):
        return "None of these is beyond the noise of the seeds (95%); few seeds tell only large differences."
    return "With one seed nothing is known of the noise."


def _ahead(records: Sequence[Record]) -> list[str]:
    """Peers whose mean is better than ours on a task by what matters; all with a result where ours has none."""
    metric = quality_of(records)
    found, values = places(records), by_method(records, metric.key)
    peers = [name for name in found if not name.startswith(OURS)]
    if OURS not in found:
        return peers
    before = [name for name in peers if found[name].rank < found[OURS].rank]
    return [name for name in before if _matters(metric, mean_of(values[name]), mean_of(values[OURS]), records)]


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
        *processors(records),
    ]


def _who(order: Sequence[str], found: Mapping[str, Standing], means: Mapping[str, float], metric: Metric) -> str:
    first = order[0]
    seeds = found[first].seeds
    told = f"{metric.title} {metric.show(means[first])}"
    if len(order) == 1:
        return f"{first} is the only method that ended well, with {told}."
    if seeds < 2:
        return f"{first} has the least {told}; with one seed nothing is known of the noise."
    tied, behind = ([name for name in order if (found[name].best == 1) == best] for best in (True, False))
    if len(tied) == 1:
        return f"{first} wins with {told}, the mean of {seeds} seeds: no other method reaches it within noise (95%)."
    least = f"the least {metric.title} is {first}'s, {metric.show(means[first])}"
    if len(tied) <= max(3, len(behind)):
        return f"{names(tied)} are not told apart over {seeds} seeds; {least}."
    worse = f"of the others only {names(behind)} {'is' if len(behind) == 1 else 'are'}" if behind else "no other is"
    return f"{least[0].upper()}{least[1:]}; {worse} worse beyond the noise of {seeds} seeds (95%)."


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
    rivals = [name for name in order[1:] if not (first.startswith(OURS) and name.startswith(OURS))] or order[1:]
    second = _behind(rivals, found)
    who = f"Next is {second}" if second == _behind(order[1:], found) else f"The next peer is {second}"
    matters = _matters(metric, means[first], means[second], records)
    how = "which matters" if matters else "which makes no difference in use"
    more = means[second] - means[first]
    if metric.show is nats:
        least = _MATTERS_NATS * records[0]["settings"]["task"]["features"]
        return [
            f"{who} with {metric.show(means[second])}, {metric.show(more)} nats a point more, {how} (more "
            f"than {number(least, 1)} does: {number(_MATTERS_NATS, 1)} a dimension)."
        ]
    times = means[second] / means[first] if means[first] > 0 else math.inf
    factor = f", {number(times, 2 if times < 100 else 3)} times as much" if times < 1e6 else ""
    told = f"{who} with {metric.show(means[second])}{factor}"
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


def _behind(order: Sequence[str], found: Mapping[str, Standing]) -> str:
    """The first that is behind beyond noise; if none is, the first."""
    return next((name for name in order if found[name].best > 1), order[0])


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
    peers = [name for name in order if name in own.above and not name.startswith(OURS)]
    winners = names(peers) if peers else "a variant of itself"
    return [f"{OURS} is {_ordinal(own.rank)} of {len(order)} {value}: it loses here to {winners}."]


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


def processors(records: Sequence[Record]) -> list[str]:
    """Whose cells are of another processor than most: a full run takes longer than one machine may be had for."""
    usual = usual_processor(records)
    away: dict[str, list[str]] = {}
    for record in records:
        if (cpu := record["machine"]["cpu"]) != usual:
            away.setdefault(cpu, []).append(record["method"])
    return [
        f"Cells of {names(list(dict.fromkeys(methods)))} ran on another processor ({cpu}) than most ({usual}): their "
        "times are left out, and their budget was worth more or less."
        for cpu, methods in away.items()
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
        *([over] if (over := overruns(records)) else []),
    ]


def overruns(records: Sequence[Record]) -> str:
    """Which methods took longer than the budget, and how much at most; empty if none did.

    Example:
        >>> task, timing = {"budget_seconds": 20.0}, {"contended": False}
        >>> cell = {"settings": {"task": task}, "timing": timing, "method": "NUTS", "status": "ok"}
        >>> overruns([cell | {"figures": {"fit_seconds": seconds}} for seconds in (19.0, 50.0, 30.0)])
        'Fits took longer where compiling, a warm-up or a last check is not broken off: NUTS up to 2.5 budgets.'
        >>> overruns([cell | {"figures": {"fit_seconds": 21.0}}])
        ''
    """
    worst: dict[str, float] = {}
    for record in records:
        taken, budget = record["figures"].get("fit_seconds"), record["settings"]["task"].get("budget_seconds")
        if record["status"] == "ok" and taken is not None and budget and not record["timing"]["contended"]:
            worst[record["method"]] = max(worst.get(record["method"], 0.0), taken / budget)
    over = sorted(((ratio, method) for method, ratio in worst.items() if ratio > _OVER), reverse=True)
    if not over:
        return ""
    told = names([f"{method} up to {ratio:.1f} budgets" for ratio, method in over])
    return f"Fits took longer where compiling, a warm-up or a last check is not broken off: {told}."


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
