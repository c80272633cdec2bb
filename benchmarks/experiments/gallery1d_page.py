"""The page of `gallery1d`: total variation by method, protocol and seed; densities; curves over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.experiments import Page
from benchmarks.experiments.densities1d import TARGETS
from benchmarks.experiments.energies import MODELS
from benchmarks.experiments.pages import OURS, curves, medians, order_of, part, seeds_cell, settings_of, won
from benchmarks.metrics import by_method
from ot_lift.report_figures import Plot
from ot_lift.report_tables import Cell, Column, Row, Table
from ot_lift.report_theme import Theme, legend, panels, plain_ticks, render
from ot_lift.report_words import names, number, seconds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = Mapping[str, Any]

_KEY = "total_variation"
_GOALS = dict.fromkeys(TARGETS, 0.005) | {"laplace": 0.012}  # of the lift, tuned: its median over seeds
_PROTOCOLS = ("tuned", "paper")
_METRICS = (
    ("total variation", "½∫|p − q| between the target and the fitted density on 8,000 points; 0 is the target itself."),
    (
        "shoulder",
        "Share of the constrained weights that are at most 0.0513: there softplus passes on under 5% of a step.",
    ),
    (
        "loss above the entropy",
        "Mean E over the batches plus log Z, less the target's entropy: 0 is the target itself.",
    ),
)


def page(records: Sequence[Record]) -> Page:
    """Findings, tables and pictures.

    Args:
        records: Of `gallery1d`, any of them.
    """
    results = [record for record in records if record["settings"]["task"]["protocol"] != "tuning"]
    protocols = [name for name in _PROTOCOLS if part(results, protocol=name)]
    tables = [
        (f"Protocol {name}", "Median over seeds, every seed below it. Bold: the least median.", _table(results, name))
        for name in protocols
    ]
    tables.append(
        (
            "Seeds that the lift wins",
            "Seeds at which the lift's total variation is smaller, of those that both have.",
            _wins(results, protocols),
        )
    )
    tables.append(
        ("What a fit takes", "Trained numbers; and the wall-clock time, where it counts.", _costs(records, protocols))
    )
    plots = [plot for name in protocols for plot in _plots(_with_gaussian(results, name), name)]
    return Page(_sentences(results, protocols), tables, plots, _METRICS)


def _order(records: Sequence[Record]) -> list[str]:
    return order_of(records, [*MODELS, "Gaussian"])


def _with_gaussian(records: Sequence[Record], protocol: str) -> list[Record]:
    """Records of a protocol; the Gaussian is the same under each."""
    return [
        record
        for record in records
        if record["settings"]["task"]["protocol"] == protocol or record["method"] == "Gaussian"
    ]


def _by_target(records: Sequence[Record]) -> dict[str, list[Record]]:
    there = settings_of(records, "target")
    return {name: part(records, target=name) for name in TARGETS if name in there}


# -------------------------------------------------------------------------------------------- words
def _sentences(records: Sequence[Record], protocols: Sequence[str]) -> list[str]:
    told = []
    for protocol in protocols:
        middle = {target: medians(own, _KEY) for target, own in _by_target(_with_gaussian(records, protocol)).items()}
        ours = [target for target, found in middle.items() if OURS in found and found[OURS] <= min(found.values())]
        lost = [
            f"{target} (least: {min(found, key=found.__getitem__)} {number(min(found.values()))}, "
            f"lift {number(found.get(OURS))})"
            for target, found in middle.items()
            if target not in ours and found
        ]
        told.append(
            f"Protocol {protocol}: the lift has the least median total variation on {len(ours)} of {len(middle)} "
            "targets" + (f"; not on {names(lost)}." if lost else ".")
        )
    goal = {
        target: found[OURS]
        for target, own in _by_target(part(records, protocol="tuned") or records).items()
        if OURS in (found := medians(part(own, protocol="tuned"), _KEY))
    }
    if goal:
        missed = [
            f"{target} {number(value)} (≤ {_GOALS[target]:g})"
            for target, value in goal.items()
            if value > _GOALS[target]
        ]
        told.append(
            f"The lift's goal in the tuned protocol is reached on {len(goal) - len(missed)} of {len(goal)} targets"
            + (f"; missed on {names(missed)}." if missed else ".")
        )
    failed = [record for record in records if record["status"] != "ok"]
    told += [f"{record['task']} × {record['method']}, seed {record['seed']}: {record['reason']}" for record in failed]
    return told


# ------------------------------------------------------------------------------------------- tables
def _table(records: Sequence[Record], protocol: str) -> Table:
    own = _with_gaussian(records, protocol)
    targets = _by_target(own)
    rows = tuple(
        Row(name, name == OURS, tuple(seeds_cell(mine, name, _KEY) for mine in targets.values()))
        for name in _order(own)
    )
    return Table((Column("method"), *(Column(TARGETS[name].title, "total variation") for name in targets)), rows)


def _wins(records: Sequence[Record], protocols: Sequence[str]) -> Table:
    targets = list(_by_target(records))
    rows = []
    for protocol in protocols:
        own = _by_target(_with_gaussian(records, protocol))
        for name in _order(records):
            if name == OURS:
                continue
            pairs = [won(own.get(target, []), name, _KEY) for target in targets]
            cells = tuple(Cell(f"{w} of {n}", w / n) if n else Cell("–") for w, n in pairs)
            if any(n for _, n in pairs):
                rows.append(Row(f"{name}, {protocol}", False, cells))
    return Table((Column("against"), *(Column(TARGETS[name].title) for name in targets)), tuple(rows))


def _costs(records: Sequence[Record], protocols: Sequence[str]) -> Table:
    results = [record for record in records if record["settings"]["task"]["protocol"] in protocols]
    numbers, times, shoulder = (medians(results, key) for key in ("parameters", "fit_seconds", "shoulder_share"))
    chosen = _chosen(records)
    rows = []
    for name in _order(results):
        if name in numbers:
            cells = (
                Cell(f"{numbers[name]:,.0f}", numbers[name]),
                Cell(seconds(times.get(name)), times.get(name)),
                Cell(f"{100 * shoulder[name]:.0f}%", shoulder[name]),
                Cell(chosen.get(name, "–")),
            )
            rows.append(Row(name, name == OURS, cells))
    columns = (
        *(
            Column("method"),
            Column("trained numbers"),
            Column("fit", "median"),
            Column("on the shoulder", "at the end"),
        ),
        Column("step sizes chosen", "tuned, by target"),
    )
    return Table(columns, tuple(rows))


def _chosen(records: Sequence[Record]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for target, own in _by_target(part(records, protocol="tuning")).items():
        for name, rates in by_method(own, "learning_rate").items():
            found.setdefault(name, []).append(f"{target} {', '.join(f'{rate:g}' for rate in rates.values())}")
    return {name: " · ".join(lines) for name, lines in found.items()}


# ----------------------------------------------------------------------------------------- pictures
def _plots(records: Sequence[Record], protocol: str) -> list[Plot]:
    own = {TARGETS[name].title: mine for name, mine in _by_target(records).items()}
    order = _order(records)
    entropy = {TARGETS[name].title: float(TARGETS[name].law.entropy()) for name in _by_target(records)}
    found = [
        Plot(
            f"seeds-{protocol}",
            f"Total variation of every seed, {protocol}",
            "A dot is a seed, a bar the median.",
            "Total variation by method, a panel for each target, a dot for each seed, logarithmic.",
            render(lambda theme: _draw_seeds(own, order, theme)),
        ),
        Plot(
            f"densities-{protocol}",
            f"Densities over targets, {protocol}",
            "The target is filled; the first seed of every method.",
            "Fitted densities as lines over the filled target, a panel for each target.",
            render(lambda theme: _draw_densities(own, order, theme)),
        ),
        curves(
            *(
                f"loss-{protocol}",
                f"Loss, {protocol}",
                "A mean over the steps since the last point; what is less than 10⁻⁴ is drawn there.",
            ),
            *(own, 1, "loss above the entropy, nats"),
            methods=order,
            shift=entropy,
            least=1e-4,
        ),
        curves(
            *(f"shoulder-{protocol}", f"On the shoulder, {protocol}", dict(_METRICS)["shoulder"]),
            *(own, 3, "share of constrained weights"),
            methods=order,
        ),
    ]
    return [plot for plot in found if plot is not None]


def _draw_seeds(targets: Mapping[str, Sequence[Record]], order: Sequence[str], theme: Theme) -> Figure:
    figure, axes = panels(len(targets), theme, height=0.9 + 0.24 * len(order), across=3)
    for place, (axis, (title, records)) in enumerate(zip(axes, targets.items(), strict=True)):
        values = by_method(records, _KEY)
        for row, name in enumerate(order):
            if own := list(values.get(name, {}).values()):
                colour = theme.colour(name, OURS, order)
                axis.plot(own, [row] * len(own), "o", color=colour, markersize=5, alpha=0.7, markeredgewidth=0)
                axis.plot([float(np.median(own))], [row], "|", color=colour, markersize=16, markeredgewidth=2)
        axis.set(xscale="log", yticks=range(len(order)), ylim=(len(order) - 0.5, -0.5))
        plain_ticks(axis.xaxis)
        axis.set_yticklabels(order if place % 3 == 0 else [])
        axis.set_title(title, color=theme.ink, fontsize=10, loc="left")
    return figure


def _draw_densities(targets: Mapping[str, Sequence[Record]], order: Sequence[str], theme: Theme) -> Figure:
    figure, axes = panels(len(targets), theme, height=2.6, across=3)
    laws = {target.title: target for target in TARGETS.values()}
    handles: dict[str, Any] = {}
    for axis, (title, records) in zip(axes, targets.items(), strict=True):
        target = laws[title]
        grid = target.grid(400)
        handles["target"] = axis.fill_between(
            grid, target.density(grid), color=theme.target, alpha=0.3, linewidth=0, label="target"
        )
        first = min((record["seed"] for record in records if "density" in record["details"]), default=None)
        for record in records:
            if record["seed"] == first and "density" in record["details"]:
                name = record["method"]
                colour, width = theme.colour(name, OURS, order), 2.0 if name == OURS else 1.1
                (handles[name],) = axis.plot(*record["details"]["density"], color=colour, linewidth=width, label=name)
        low, high = target.law.ppf([0.0005, 0.9995])
        axis.set_xlim(float(low), float(high))
        axis.set_title(title, color=theme.ink, fontsize=10, loc="left")
    legend(figure, list(handles.values()), theme)
    return figure
