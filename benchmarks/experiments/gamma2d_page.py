"""The page of `gamma2d`: total variation by method, protocol and seed; densities in the plane; curves over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.experiments import Page
from benchmarks.experiments.densities2d import PLANE_TARGETS, WINDOW
from benchmarks.experiments.energies import MODELS
from benchmarks.experiments.fit_pages import (
    COSTS,
    Places,
    against,
    costs_table,
    dots,
    protocols_of,
    results_of,
    under,
    values_table,
    wins_table,
)
from benchmarks.experiments.pages import OURS, curves, failures, order_of
from ot_lift.report_figures import Plot
from ot_lift.report_theme import Picture, Theme, panels
from ot_lift.report_words import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = Mapping[str, Any]

_KEY = "total_variation"
_METHODS, _UNTRAINED = (*MODELS, "Gaussian"), ("Gaussian",)
_PICTURED = ("lift", "softplus", "projection", "Gaussian")
_METRICS = (
    ("total variation", "½∫|p − q| between the target and the fitted density; 0 is the target itself."),
    ("Kullback–Leibler", "∫p log(p/q), nats."),
    (
        "shoulder",
        "Share of the constrained weights that are at most 0.0513: there softplus passes on under 5% of a step.",
    ),
)


def page(records: Sequence[Record]) -> Page:
    """Findings, tables and pictures.

    Args:
        records: Of `gamma2d`, any of them.
    """
    results = results_of(records)
    order = order_of(results, _METHODS)
    places = {f"Protocol {name}": under(results, name, _UNTRAINED) for name in protocols_of(results)}
    explanation = "Median over seeds, every seed below it. Bold: the least median."
    tables = [
        ("Total variation", explanation, values_table(places, order, _KEY, "total variation")),
        ("Kullback–Leibler divergence", explanation, values_table(places, order, "kullback_leibler", "nats")),
        (
            "Seeds that the lift wins",
            "Seeds at which the lift's total variation is smaller, of those that both have.",
            wins_table({"": places}, order, _KEY),
        ),
        ("What a fit takes", COSTS, costs_table(records, order)),
    ]
    told = against(places, ("softplus", "projection"), _KEY, "the median total variation")
    return Page(told + failures(records), tables, _plots(places, order), _METRICS)


def _plots(places: Places, order: Sequence[str]) -> list[Plot]:
    label = "Total variation"
    found = [
        dots("seeds", f"{label} of every seed", places, _KEY, label, methods=order),
        *(_contours(name, own) for name, own in places.items()),
        curves(
            *("variation", f"{label} over training", "Of the weights that would be kept if training ended there."),
            *(places, 2, "total variation"),
            methods=order,
            least=1e-4,
        ),
        curves(
            *("shoulder", "On the shoulder", dict(_METRICS)["shoulder"]),
            *(places, 3, "share of constrained weights"),
            methods=order,
        ),
    ]
    return [plot for plot in found if plot is not None]


def _contours(title: str, records: Sequence[Record]) -> Plot:
    densities = _pictured(records)
    return Plot(
        *(f"densities-{title.rpartition(' ')[2]}", f"Densities, {title.lower()}"),
        "Levels of the density, the target's dotted behind the others'; the first seed of every method, with its "
        "total variation.",
        f"Contours of the target and of fitted densities, {title.lower()}.",
        Picture(lambda theme: _draw(densities, theme)),
    )


def _pictured(records: Sequence[Record]) -> dict[str, np.ndarray[Any, Any]]:
    """Densities by title: those of the first seed of the methods shown."""
    kept = {
        (record["method"], record["seed"]): record
        for record in records
        if "density" in record["details"] and record["method"] in _PICTURED
    }
    first = min((seed for _, seed in kept), default=None)
    found = {}
    for name in _PICTURED:
        if (record := kept.get((name, first))) is not None:
            found[f"{name}: {number(record['figures'][_KEY])}"] = np.array(record["details"]["density"])
    return found


def _draw(densities: Mapping[str, np.ndarray[Any, Any]], theme: Theme) -> Figure:
    target = next(iter(PLANE_TARGETS.values()))
    side = round(len(next(iter(densities.values()))) ** 0.5) if densities else 2
    axis_points, truth = np.linspace(0, WINDOW, side), target.density(target.window(side))
    levels = truth.max() * np.array([0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95])
    figure, axes = panels(1 + len(densities), theme, height=2.6, across=3)
    for axis, (title, density) in zip(axes, [("target", truth), *densities.items()], strict=True):
        if title != "target":
            behind: dict[str, Any] = {"colors": theme.target, "linewidths": 0.8, "linestyles": ":"}
            axis.contour(axis_points, axis_points, truth.reshape(side, side).T, levels, **behind)
        colour = theme.target if title == "target" else theme.ours if title.startswith(OURS) else theme.muted
        axis.contour(axis_points, axis_points, density.reshape(side, side).T, levels, colors=colour, linewidths=1.2)
        axis.set(aspect="equal")
        axis.set_title(title, color=theme.ink, fontsize=10, loc="left")
    return figure
