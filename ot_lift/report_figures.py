"""The standard plots of a report: each one drawn for light and dark, with a sentence and a description."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ot_lift import report_plots as draw
from ot_lift import report_words as words
from ot_lift.comparison import Comparison
from ot_lift.report_theme import Picture

__all__ = ["Plot", "standard_plots"]


@dataclass(frozen=True)
class Plot:
    """A plot with its caption.

    Attributes:
        key: its file's name, without the suffix, and its heading's anchor.
        title: its heading.
        sentence: what it says, in plain words.
        alt: what it shows, for those who cannot see it.
        picture: as PNG.
    """

    key: str
    title: str
    sentence: str
    alt: str
    picture: Picture


def standard_plots(comparison: Comparison, *, columns: Sequence[str], ours: str) -> list[Plot]:
    """Every plot that the comparison has figures for.

    Args:
        comparison: the record.
        columns: names of the data's columns.
        ours: the method that is emphasised.

    Returns:
        Pushforward error, error against time, W2² and cost, displacement, marginals, convergence.
    """
    reached = [one for one in comparison.results if one.status == "ok" and one.transported is not None]
    if not reached:
        return []
    plots = [
        _pushforward(comparison, ours=ours),
        _trade_off(comparison, ours=ours),
        _values_of_w2(comparison, ours=ours),
        _displacement(comparison, columns=columns, ours=ours),
        _marginals(comparison, columns=columns, ours=ours),
    ]
    history = comparison[ours].details.get("history") or ()
    if len(history) > 1:
        plots.append(_convergence(comparison, ours=ours))
    return plots


def _values(comparison: Comparison, figure: str) -> dict[str, float]:
    found = {one.name: getattr(one, figure) for one in comparison.results if one.status == "ok"}
    return {name: float(value) for name, value in found.items() if value is not None}


def _pushforward(comparison: Comparison, *, ours: str) -> Plot:
    energy, sliced = _values(comparison, "energy"), _values(comparison, "sliced_w2")
    nulls = comparison.energy_null, comparison.sliced_w2_null
    return Plot(
        "pushforward",
        "Do transported points look like the target?",
        f"{words.verdict(comparison, 'energy', ours=ours)} By sliced W2: "
        f"{words.verdict(comparison, 'sliced_w2', ours=ours)} In the grey band the transported points cannot be told "
        "from the target at this sample size.",
        "Energy distance and sliced W2 to the target by method, each with the noise level as a grey band.",
        Picture(lambda theme: draw.pushforward(energy, sliced, nulls, theme, ours=ours)),
    )


def _trade_off(comparison: Comparison, *, ours: str) -> Plot:
    energy, seconds = _values(comparison, "energy"), _values(comparison, "fit_seconds")
    return Plot(
        "trade-off",
        "What does it cost?",
        f"{words.time_sentence(comparison, ours=ours)} To use: "
        f"{words.verdict(comparison, 'transport_seconds', ours=ours)}",
        "Energy distance to the target against fit time, by method, on logarithmic axes.",
        Picture(lambda theme: draw.trade_off(seconds, energy, comparison.energy_null, theme, ours=ours)),
    )


def _values_of_w2(comparison: Comparison, *, ours: str) -> Plot:
    row = comparison[ours]
    limits = None
    if row.w2_squared_lower is not None and row.w2_squared_upper is not None:
        limits = row.w2_squared_lower, row.w2_squared_upper
    errors = _values(comparison, "transport_cost_error")
    costs = {name: (cost, errors.get(name, 0.0)) for name, cost in _values(comparison, "transport_cost").items()}
    values = _values(comparison, "w2_squared")
    return Plot(
        "w2-squared",
        "W2² and transport cost",
        words.w2_sentence(comparison, ours=ours),
        "Transport cost and W2² by method, with the certificate's lower and upper limit as a band.",
        Picture(lambda theme: draw.values_of_w2(values, limits, costs, theme, ours=ours)),
    )


def _displacement(comparison: Comparison, *, columns: Sequence[str], ours: str) -> Plot:
    images = {one.name: one.transported for one in comparison.results if one.transported is not None}
    source, target = comparison.source_points, comparison.target_points
    projected = "" if len(columns) <= 2 else " The plane is the one in which source and target vary most."
    return Plot(
        "displacement",
        "Where points go",
        f"{words.cost_sentence(comparison, ours=ours)}{projected}",
        "For every method, arrows from held-out source points to where the map sends them, over source and target.",
        Picture(lambda theme: draw.displacement(source, target, images, theme, ours=ours, columns=columns)),
    )


def _marginals(comparison: Comparison, *, columns: Sequence[str], ours: str) -> Plot:
    source, target = comparison.source_points, comparison.target_points
    images = {one.name: one.transported for one in comparison.results if one.transported is not None}
    return Plot(
        "marginals",
        "Column by column",
        words.marginal_sentence(comparison, columns=columns, ours=ours),
        "Densities of single columns: the target filled, the transported points of every method as lines.",
        Picture(lambda theme: draw.marginals(source, target, images, theme, ours=ours, columns=columns)),
    )


def _convergence(comparison: Comparison, *, ours: str) -> Plot:
    details = comparison[ours].details
    history = details["history"]
    return Plot(
        "convergence",
        f"Convergence of {ours}",
        words.convergence_sentence(history, stop_reason=details.get("stop_reason", ""), ours=ours),
        "Held-out value of the fit against wall time, the whole run and its later part.",
        Picture(lambda theme: draw.convergence(history, theme)),
    )
