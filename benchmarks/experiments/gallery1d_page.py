"""The page of `gallery1d`: total variation by method, protocol and seed; densities; curves over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.experiments import Page
from benchmarks.experiments.densities1d import TARGETS
from benchmarks.experiments.energies import MODELS
from benchmarks.experiments.fit_pages import (
    COSTS,
    Places,
    costs_table,
    dots,
    protocols_of,
    results_of,
    under,
    values_table,
    wins_table,
)
from benchmarks.experiments.pages import OURS, curves, failures, medians, order_of, part, settings_of
from ot_lift.report_figures import Plot
from ot_lift.report_theme import Picture, Theme, legend, panels
from ot_lift.report_words import names, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = Mapping[str, Any]

_KEY = "total_variation"
_GOALS = dict.fromkeys(TARGETS, 0.005) | {"laplace": 0.012}  # of the lift, tuned: its median over seeds
METHODS, UNTRAINED = (*MODELS, "Gaussian"), ("Gaussian",)
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
    results = results_of(records)
    protocols = protocols_of(results)
    order = order_of(results, METHODS)
    places = {
        name: {TARGETS[target].title: own for target, own in _by_target(under(results, name, UNTRAINED)).items()}
        for name in protocols
    }
    explanation = "Median over seeds, every seed below it. Bold: the least median."
    tables = [
        (f"Protocol {name}", explanation, values_table(own, order, _KEY, "total variation"))
        for name, own in places.items()
    ]
    tables += [
        (
            "Seeds that the lift wins",
            "Seeds at which the lift's total variation is smaller, of those that both have.",
            wins_table(places, order, _KEY),
        ),
        ("What a fit takes", COSTS, costs_table(records, order)),
    ]
    plots = [plot for name, own in places.items() for plot in _plots(own, order, name)]
    return Page(_sentences(results, protocols), tables, plots, _METRICS)


def _by_target(records: Sequence[Record]) -> dict[str, list[Record]]:
    there = settings_of(records, "target")
    return {name: part(records, target=name) for name in TARGETS if name in there}


# -------------------------------------------------------------------------------------------- words
def _sentences(records: Sequence[Record], protocols: Sequence[str]) -> list[str]:
    told = []
    for protocol in protocols:
        middle = {target: medians(own, _KEY) for target, own in _by_target(under(records, protocol, UNTRAINED)).items()}
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
    return told + failures(records)


# ----------------------------------------------------------------------------------------- pictures
def _plots(own: Places, order: Sequence[str], protocol: str) -> list[Plot]:
    entropy = {target.title: float(target.law.entropy()) for target in TARGETS.values()}
    label = "Total variation"
    found = [
        dots(f"seeds-{protocol}", f"{label} of every seed, {protocol}", own, _KEY, label, methods=order),
        Plot(
            f"densities-{protocol}",
            f"Densities over targets, {protocol}",
            "The target is filled; the first seed of every method.",
            "Fitted densities as lines over the filled target, a panel for each target.",
            Picture(lambda theme: _draw_densities(own, order, theme)),
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
