"""The page of `flows2d`: likelihood by method, protocol and seed; the shoulder over training; densities."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.experiments import Page
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
from benchmarks.experiments.flows import GAUSSIAN, MODELS
from benchmarks.experiments.pages import OURS, curves, failures, medians, order_of, part, settings_of
from benchmarks.metrics import by_method
from ot_lift.report_figures import Plot
from ot_lift.report_theme import Picture, Theme, panels
from ot_lift.report_words import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = Mapping[str, Any]

_KEY = "excess_nll"
_METHODS, _UNTRAINED = (*MODELS, GAUSSIAN), (GAUSSIAN,)
_METRICS = (
    (
        "above the truth",
        "Mean of log p − log q over fresh points, nats: the flow's negative log-likelihood less the density's own.",
    ),
    ("NLL", "Mean of −log q over fresh points, nats."),
    (
        "shoulder",
        "Share of the constrained weights, in units of what softplus is multiplied by, that are at most 0.0513: there "
        "it passes on under 5% of a step.",
    ),
)


def page(records: Sequence[Record]) -> Page:
    """Findings, tables and pictures.

    Args:
        records: Of `flows2d`, any of them.
    """
    results = results_of(records)
    order = order_of(results, _METHODS)
    places = {name: _by_title(under(results, name, _UNTRAINED)) for name in protocols_of(results)}
    explanation = "Median over seeds, every seed below it. Bold: the least median."
    tables = [
        (f"{title}, {name}", explanation, values_table(own, order, key, "nats"))
        for name, own in places.items()
        for title, key in (("Above the truth", _KEY), ("NLL", "nll"))
    ]
    tables += [
        (
            "Seeds that the lift wins",
            "Seeds at which the lift's likelihood is the larger one, of those that both have.",
            wins_table(places, order, _KEY),
        ),
        ("What a fit takes", COSTS, costs_table(records, order)),
    ]
    plots = [plot for name, own in places.items() for plot in _plots(own, order, name)]
    told = [_gap(own, name) for name, own in places.items()]
    told += [sentence for name, own in places.items() for sentence in _shoulder(own, name)]
    return Page([*filter(None, told), *failures(records)], tables, plots, _METRICS)


def _by_title(records: Sequence[Record]) -> dict[str, list[Record]]:
    return {title: part(records, title=title) for title in settings_of(records, "title")}


def _gap(places: Places, protocol: str) -> str:
    """The lift against softplus, seed by seed, beside how much seeds differ."""
    told = []
    for title, records in places.items():
        values = by_method(records, _KEY)
        ours, theirs = values.get(OURS, {}), values.get("softplus", {})
        gaps = [theirs[seed] - ours[seed] for seed in sorted(ours.keys() & theirs.keys())]
        if gaps:
            among = f" ({number(min(gaps))} to {number(max(gaps))})" if len(gaps) > 1 else ""
            told.append(f"{title} {number(statistics.median(gaps))}{among}")
    return f"Protocol {protocol}: softplus' NLL less the lift's, nats: {'; '.join(told)}." if told else ""


def _shoulder(places: Places, protocol: str) -> list[str]:
    """The largest share of softplus' weights that any seed has on the shoulder at any look."""
    told = []
    for name in ("softplus", "unscaled softplus"):
        shares = [
            (row[3], row[0])
            for records in places.values()
            for record in records
            if record["method"] == name
            for row in record["details"].get("curve", ())
        ]
        if shares:
            most, step = max(shares)
            told.append(
                f"Protocol {protocol}: of the weights of {name}, at most {100 * most:.0f}% are on the shoulder in any "
                f"fit, at step {step:,}."
            )
    return told


def _plots(own: Places, order: Sequence[str], protocol: str) -> list[Plot]:
    label = "Likelihood above the truth"
    found = [
        dots(f"seeds-{protocol}", f"Above the truth, every seed, {protocol}", own, _KEY, label, methods=order),
        curves(
            *(f"shoulder-{protocol}", f"On the shoulder, {protocol}", dict(_METRICS)["shoulder"]),
            *(own, 3, "share of constrained weights"),
            methods=order,
        ),
        curves(
            *(
                f"loss-{protocol}",
                f"Above the truth over training, {protocol}",
                "At 2,000 fresh points, of the weights that would be kept if training ended there.",
            ),
            *(own, 2, "nats above the truth"),
            methods=order,
            least=1e-3,
        ),
        _densities(own, order, protocol),
    ]
    return [plot for plot in found if plot is not None]


def _densities(places: Places, order: Sequence[str], protocol: str) -> Plot | None:
    """A panel for each place and method: the first seed's density."""
    shown: dict[str, Mapping[str, Any]] = {}
    for title, records in places.items():
        middle = medians(records, _KEY)
        kept = [record for record in records if "density" in record["details"]]
        for name in order:
            own = [record for record in kept if record["method"] == name]
            if own and name in middle:
                shown[f"{title}, {name}"] = min(own, key=lambda record: record["seed"])["details"]
    if not shown:
        return None
    return Plot(
        *(f"densities-{protocol}", f"Fitted densities, {protocol}", "The first seed of every method."),
        f"Fitted densities in the plane: {', '.join(shown)}.",
        Picture(lambda theme: _draw(shown, theme)),
    )


def _draw(shown: Mapping[str, Mapping[str, Any]], theme: Theme) -> Figure:
    from matplotlib.colors import LinearSegmentedColormap

    figure, axes = panels(len(shown), theme, height=2.5, across=4)
    colours = LinearSegmentedColormap.from_list("density", [theme.paper, theme.ours])
    for axis, (title, details) in zip(axes, shown.items(), strict=True):
        density = np.array(details["density"])
        side = round(len(density) ** 0.5)
        (left, low), (right, high) = details["box"]
        axis.imshow(
            density.reshape(side, side).T, extent=(left, right, low, high), origin="lower", cmap=colours, aspect="equal"
        )
        axis.grid(visible=False)
        axis.set_title(title, color=theme.ink, fontsize=9, loc="left")
    return figure
