"""Figures of the report: every function takes arrays and a `Theme` and returns a `matplotlib.figure.Figure`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ot_lift.report_theme import Theme, legend, name_ticks, panels, plain_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["clouds", "convergence", "displacement", "marginals", "pushforward", "trade_off", "values_of_w2"]

Array = npt.NDArray[np.floating[Any]]

_PANELS = 3  # in a row
_POINTS, _ARROWS = 1500, 90  # as many as can be told apart in a panel
_COLUMNS = 6  # of the data whose marginals are shown
_LEAST_SECONDS = 1e-3  # faster fits are drawn here


def displacement(
    source: Array,
    target: Array,
    images: Mapping[str, Array],
    theme: Theme,
    *,
    ours: str,
    columns: Sequence[str],
    colours: Array | None = None,
) -> Figure:
    """Arrows from x to T(x) over source and target, one panel a method.

    Args:
        source: x `(n, d)`.
        target: y `(m, d)`.
        images: T(x) `(n, d)` of every method.
        theme: colours.
        ours: which of the methods is this library's.
        columns: names of the d columns.
        colours: of the points x, red, green and blue in [0, 1] `(n, 3)`; None: the theme's.

    Returns:
        The figure; more than two columns are projected to the plane in which source and target vary most.
    """
    plane, labels = _plane(source, target, columns)
    x, y = source @ plane, target @ plane
    names = list(images)
    limits = [_range(side) for side in np.concatenate([x, y]).T]
    spans = [high - low for low, high in limits]
    figure, axes = panels(
        len(names), theme, height=0.35 + float(np.clip(2.9 * spans[1] / spans[0], 1.6, 3.6)), across=_PANELS
    )
    for place, (axis, name) in enumerate(zip(axes, names, strict=True)):
        colour = theme.colour(name, ours, names)
        axis.scatter(y[:_POINTS, 0], y[:_POINTS, 1], s=5, color=theme.target, alpha=0.35, linewidths=0)
        axis.scatter(x[:_POINTS, 0], x[:_POINTS, 1], s=5, color=theme.source, alpha=0.35, linewidths=0)
        _arrows(axis, x[:_ARROWS], (images[name] @ plane)[:_ARROWS], colour if colours is None else colours[:_ARROWS])
        axis.set(xlim=limits[0], ylim=limits[1], aspect="equal")
        axis.set(xlabel=labels[0] if place >= len(names) - _PANELS else "", ylabel="" if place % _PANELS else labels[1])
        axis.set_title(name, color=colour, fontsize=11, fontweight="bold" if name == ours else "normal", loc="left")
    handles: list[Any] = [
        axes[0].scatter([], [], s=25, color=theme.source, label="source x"),
        axes[0].scatter([], [], s=25, color=theme.target, label="target y"),
    ]
    handles += axes[0].plot(
        [], [], marker=r"$\rightarrow$", markersize=14, color=theme.muted, linewidth=0, label="to T(x)"
    )
    legend(figure, handles, theme)
    return figure


def _arrows(axis: Axes, x: Array, image: Array, colour: str | Array) -> None:
    """From each point to its image, in the axis' own units."""
    axis.quiver(
        *x.T,
        *(image - x).T,
        angles="xy",
        scale_units="xy",
        scale=1,
        width=0.0035,
        headwidth=5,
        color=colour,
        alpha=0.9,
    )


def clouds(colours: Mapping[str, Array], theme: Theme, *, ours: str) -> Figure:
    """Clouds of colours in the plane in which the first two vary most, each point drawn in its own colour.

    Args:
        colours: red, green and blue in [0, 1] `(n, 3)`, by title; the first two are source and target.
        theme: colours of everything else.
        ours: which of the titles is this library's.

    Returns:
        The figure.
    """
    source, target = list(colours.values())[:2]
    plane, _ = _plane(source, target, ("red", "green", "blue"))
    limits = [_range(side) for side in (np.concatenate([source, target]) @ plane).T]
    figure, axes = panels(len(colours), theme, height=2.6, across=4)
    for axis, (name, points) in zip(axes, colours.items(), strict=True):
        first, second = (points @ plane)[:_POINTS].T
        axis.scatter(first, second, s=7, c=np.clip(points[:_POINTS], 0, 1), linewidths=0)
        axis.set_facecolor("#7f858d")  # on mid grey, dark and pale colours both show
        axis.grid(visible=False)
        axis.set(xlim=limits[0], ylim=limits[1], xticks=[], yticks=[])
        axis.set_title(
            name,
            color=theme.ours if name == ours else theme.ink,
            fontsize=11,
            fontweight="bold" if name == ours else "normal",
            loc="left",
        )
    return figure


def marginals(
    source: Array,
    target: Array,
    images: Mapping[str, Array],
    theme: Theme,
    *,
    ours: str,
    columns: Sequence[str],
) -> Figure:
    """Densities of single columns: target filled, transported points as lines.

    Args:
        source: x `(n, d)`.
        target: y `(m, d)`.
        images: T(x) `(n, d)` by method.
        theme: colours.
        ours: which of the methods is this library's.
        columns: names of the d columns; the first few are shown.

    Returns:
        The figure.
    """
    shown = range(min(_COLUMNS, source.shape[1]))
    figure, axes = panels(len(shown), theme, height=2.7, across=_PANELS)
    names = list(images)
    for axis, j in zip(axes, shown, strict=True):
        low, high = _range(np.concatenate([source[:, j], target[:, j]]))
        bins = np.linspace(low, high, max(8, round(3 * len(target) ** (1 / 3))) + 1)
        middles = 0.5 * (bins[1:] + bins[:-1])
        for points, colour, label in ((target, theme.target, "target"), (source, theme.source, "source")):
            axis.fill_between(middles, _density(points[:, j], bins), color=colour, alpha=0.3, linewidth=0, label=label)
        for name in sorted(names, key=lambda name: name == ours):
            if np.array_equal(images[name], source):
                continue  # the identity: its density is drawn as the source's
            colour, width = theme.colour(name, ours, names), 2.4 if name == ours else 1.2
            axis.plot(middles, _density(images[name][:, j], bins), color=colour, linewidth=width, label=name)
        axis.set(xlim=(low, high), xlabel=columns[j], ylabel="" if j % _PANELS else "density")
        axis.set_yticks([])
        axis.set_ylim(0, 1.5 * _density(target[:, j], bins).max())  # what piles up must not flatten the rest
    legend(figure, axes[0].get_legend_handles_labels()[0], theme)
    return figure


def convergence(history: Sequence[Mapping[str, float]], theme: Theme) -> Figure:
    """Held-out value of the fit against wall time: the whole run, and its later part alone.

    Args:
        history: records with `seconds` and `held_out`.
        theme: colours.

    Returns:
        The figure.
    """
    time = np.array([record["seconds"] for record in history])
    values = np.array([record["held_out"] for record in history])
    best = int(np.nanargmin(values))
    late = min(len(values) // 5, best)
    figure, axes = panels(2, theme, height=3.2, across=2)
    for axis, first, title in zip(axes, (0, late), ("the whole run", "enlarged"), strict=True):
        axis.axhline(values[best], color=theme.muted, linewidth=1, linestyle=(0, (4, 3)))
        axis.plot(time[first:], values[first:], color=theme.ours, linewidth=2, marker="o", markersize=4)
        axis.plot(time[best], values[best], "o", markersize=9, color=theme.ours, markeredgecolor=theme.paper)
        axis.set(xlabel="wall time of training, s")
        axis.set_title(title, fontsize=11, color=theme.ink, loc="left")
        axis.ticklabel_format(axis="y", useOffset=False)
    axes[0].set_ylabel("held-out semi-dual\n(standardised units, lower is better)", fontsize=9)
    return figure


def pushforward(
    energy: Mapping[str, float], sliced_w2: Mapping[str, float], nulls: tuple[float, float], theme: Theme, *, ours: str
) -> Figure:
    """Two distances of transported points to the target, with the level that two halves of the target reach.

    Args:
        energy: energy distance by method, data units.
        sliced_w2: sliced W2 by method, data units.
        nulls: 95% levels of both.
        theme: colours.
        ours: which of the methods is this library's.

    Returns:
        The figure; best method on top.
    """
    order = sorted(energy, key=energy.__getitem__, reverse=True)
    figure, axes = panels(2, theme, height=0.9 + 0.36 * len(order), across=2)
    labels = ("energy distance (data units)", "sliced W2 (data units)")
    for axis, values, null, label in zip(axes, (energy, sliced_w2), nulls, labels, strict=True):
        low, high = _decades([*values.values(), null])
        axis.axvspan(low, null, color=theme.muted, alpha=0.14, linewidth=0)
        axis.axvline(null, color=theme.muted, linewidth=1, linestyle=(0, (4, 3)))
        for height, name in enumerate(order):
            colour, value = theme.colour(name, ours, tuple(energy)), max(values[name], low)
            axis.plot([low, value], [height, height], color=colour, linewidth=2.2 if name == ours else 1.2, alpha=0.5)
            axis.plot(value, height, "o", color=colour, markersize=9 if name == ours else 7)
        axis.set(xscale="log", xlim=(low, high), ylim=(-0.6, len(order) - 0.4), xlabel=label)
        plain_ticks(axis.xaxis)
        axis.set_yticks(range(len(order)), order)
        axis.grid(axis="y", visible=False)
        axis.text(null, len(order) - 0.45, " noise level", color=theme.muted, fontsize=8, va="bottom")
    name_ticks(axes, order, theme, ours=ours)
    return figure


def trade_off(
    fit_seconds: Mapping[str, float], energy: Mapping[str, float], null: float, theme: Theme, *, ours: str
) -> Figure:
    """Energy distance against fit time, both logarithmic: down and left is better.

    Args:
        fit_seconds: by method.
        energy: by method, data units.
        null: 95% level of the energy distance.
        theme: colours.
        ours: which of the methods is this library's.

    Returns:
        The figure.
    """
    figure, (axis,) = panels(1, theme, height=3.9, across=1)
    low, high = _decades([*energy.values(), null])
    axis.axhspan(low, null, color=theme.muted, alpha=0.14, linewidth=0)
    axis.axhline(null, color=theme.muted, linewidth=1, linestyle=(0, (4, 3)))
    times = {name: max(value, _LEAST_SECONDS) for name, value in fit_seconds.items()}
    left, right = _decades(list(times.values()))
    taken: list[Array] = []
    for name in sorted(energy, key=times.__getitem__):
        colour, point = theme.colour(name, ours, tuple(energy)), (times[name], max(energy[name], low))
        axis.plot(*point, "o", color=colour, markersize=11 if name == ours else 8)
        spot = np.log(np.array(point) / (left, low)) / np.log((right / left, high / low))
        crowded = any(abs(spot - other)[0] < 0.16 and abs(spot - other)[1] < 0.1 for other in taken)
        taken.append(spot)
        axis.annotate(
            name,
            point,
            xytext=(0, -9 if crowded else 9),
            textcoords="offset points",
            ha="center",
            va="top" if crowded else "bottom",
            color=colour,
            fontsize=10,
            fontweight="bold" if name == ours else "normal",
        )
    axis.set(xscale="log", yscale="log", xlim=(left, right), ylim=(low, high))
    plain_ticks(axis.xaxis)
    plain_ticks(axis.yaxis)
    axis.set(xlabel="fit time, s (less than 1 ms is drawn at 1 ms)", ylabel="energy distance to the target")
    axis.text(left, null, " noise level: two halves of the target", color=theme.muted, fontsize=8, va="bottom")
    return figure


def values_of_w2(
    values: Mapping[str, float],
    limits: tuple[float, float] | None,
    costs: Mapping[str, tuple[float, float]],
    theme: Theme,
    *,
    ours: str,
) -> Figure:
    """W2² as each method has it and the transport cost of its map, with the certificate's limits as a band.

    Args:
        values: W2² by method, squared data units.
        limits: of the certificate, 95% each.
        costs: mean ‖x − T(x)‖² and its standard error, by method.
        theme: colours.
        ours: which of the methods is this library's.

    Returns:
        The figure.
    """
    order = list(costs)[::-1]
    figure, (axis,) = panels(1, theme, height=1.1 + 0.4 * len(order), across=1)
    if limits is not None:
        axis.axvspan(*limits, color=theme.ours, alpha=0.13, linewidth=0)
        middle = 0.5 * sum(limits)
        axis.text(middle, len(order) - 0.45, "limits of W2²", color=theme.ours, fontsize=8, va="bottom", ha="center")
    for height, name in enumerate(order):
        colour, (cost, error) = theme.colour(name, ours, list(costs)), costs[name]
        axis.errorbar(
            cost, height, xerr=1.96 * error, fmt="o", color=colour, markersize=9 if name == ours else 7, capsize=3
        )
        if name in values:
            axis.plot(values[name], height, "D", markersize=8, markerfacecolor="none", markeredgecolor=colour)
    axis.set(ylim=(-0.6, len(order) - 0.4), xlabel="squared data units")
    axis.set_yticks(range(len(order)), order)
    axis.grid(axis="y", visible=False)
    name_ticks([axis], order, theme, ours=ours)
    handles = [
        axis.plot([], [], "o", color=theme.muted, label="mean ‖x − T(x)‖², 95% interval")[0],
        axis.plot([], [], "D", markerfacecolor="none", markeredgecolor=theme.muted, label="the method's own W2²")[0],
    ]
    legend(figure, handles, theme)
    return figure


# -------------------------------------------------------------------------------------------- pieces
def _plane(source: Array, target: Array, columns: Sequence[str]) -> tuple[Array, tuple[str, str]]:
    """The plane to draw in `(d, 2)` and the names of its axes."""
    features = source.shape[1]
    if features == 1:
        return np.array([[1.0, 0.0]]), (columns[0], "")
    if features == 2:
        return np.eye(2), (columns[0], columns[1])
    both = np.concatenate([source, target]).astype(np.float64)
    _, _, directions = np.linalg.svd(both - both.mean(0), full_matrices=False)
    plane = directions[:2].T
    plane = plane * np.sign(plane[np.abs(plane).argmax(0), [0, 1]])  # the sign of a singular vector is arbitrary
    return plane, ("first principal direction", "second principal direction")


def _density(values: Array, bins: Array) -> Array:
    """Share of all values in each bin, over its width: what lies outside the bins still counts in the whole."""
    return np.histogram(values, bins=bins)[0] / (len(values) * np.diff(bins))


def _range(values: Array) -> tuple[float, float]:
    """Where nearly all values lie, with a margin; never empty."""
    low, high = (float(edge) for edge in np.quantile(values, [0.002, 0.998]))
    margin = 0.06 * (high - low) or 0.5 * abs(high) or 0.5
    return low - margin, high + margin


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """Limits of a logarithmic axis around the positive values, at least a decade and a half."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive) / 2, max(positive) * 2.5
    return min(low, high / 30), high
