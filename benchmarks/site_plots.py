"""The pictures of the site: quality against time, error over time, and maps in two dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.cells_process import CURVE_POINTS
from benchmarks.methods import OURS
from benchmarks.metrics import Metric, by_method, mean_of, quality_of
from benchmarks.site_densities import density_plot
from benchmarks.site_words import BASELINE
from ot_lift.report_figures import Plot
from ot_lift.report_plots import displacement
from ot_lift.report_theme import Picture, Theme, panels, plain_ticks
from ot_lift.report_words import names, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

Record = Mapping[str, Any]

_LEAST_SECONDS = 1e-3  # faster fits are drawn here
_WAYS = (  # of a name from its point, with what of the name is nearest to it
    (0, 1, "center", "bottom"),
    (0, -1, "center", "top"),
    (1, 0, "left", "center"),
    (-1, 0, "right", "center"),
    (1, 1, "left", "bottom"),
    (-1, 1, "right", "bottom"),
    (1, -1, "left", "top"),
    (-1, -1, "right", "top"),
)
_PLACES = tuple(((far * x, far * y), across, up) for far in (9, 24) for x, y, across, up in _WAYS)  # offset in points


def task_plots(records: Sequence[Record]) -> list[Plot]:
    """Every plot that a task's records have figures for.

    Args:
        records: Of one task.
    """
    plots = _trade_off(records), _over_time(records), _maps(records), density_plot(records)
    return [plot for plot in plots if plot is not None]


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Those that no other beats in both coordinates, by the first.

    Args:
        points: Two figures by name; of both less is better.

    Example:
        >>> pareto_front({"slow": (9.0, 1.0), "fast": (1.0, 5.0), "worse": (9.5, 6.0)})
        ['fast', 'slow']
    """
    front: list[str] = []
    for name in sorted(points, key=points.__getitem__):
        if not front or points[name][1] < points[front[-1]][1]:
            front.append(name)
    return front


def _drawn_times(records: Sequence[Record]) -> dict[str, dict[int, float]]:
    """Fit times by method and seed: those that count, and of a method that has none all the others."""
    found: dict[str, dict[int, float]] = {}
    for record in records:
        if record["status"] == "ok":
            found.setdefault(record["method"], {})[record["seed"]] = record["figures"]["fit_seconds"]
    return found | by_method(records, "fit_seconds")


def _trade_off(records: Sequence[Record]) -> Plot | None:
    metric = quality_of(records)
    quality, counted = by_method(records, metric.key), by_method(records, "fit_seconds")
    if not quality:
        return None
    racing = [name for name in quality if name in counted and name != BASELINE]
    points = {name: (mean_of(counted[name]), mean_of(quality[name])) for name in racing}
    front = pareto_front(points)
    hollow = [name for name in quality if name not in counted]
    told = f"On the front, where nothing else is both faster and better: {names(front)}." if front else ""
    if hollow:
        told += f" Hollow: {names(hollow)}, whose time was taken on another or a shared machine; it does not count."
    return Plot(
        "trade-off",
        "Quality against time",
        told.strip(),
        f"{metric.title} against fit time by method, single seeds as small dots.",
        Picture(lambda theme: _draw_trade_off(_drawn_times(records), quality, front, hollow, metric, theme)),
    )


def _draw_trade_off(
    times: Mapping[str, Mapping[int, float]],
    quality: Mapping[str, Mapping[int, float]],
    front: Sequence[str],
    hollow: Sequence[str],
    metric: Metric,
    theme: Theme,
) -> Figure:
    figure, (axis,) = panels(1, theme, height=4.4, across=1)
    order = list(quality)
    spots, every = {}, []
    for name in order:
        values = {seed: max(value, metric.floor) for seed, value in quality[name].items()}
        clock = {seed: max(time, _LEAST_SECONDS) for seed, time in times[name].items()}
        pairs = np.array([(clock[seed], values[seed]) for seed in values.keys() & clock.keys()]).reshape(-1, 2)
        colour, inside = theme.colour(name, OURS, order), "none" if name in hollow else None
        if len(pairs) > 1:
            axis.scatter(pairs[:, 0], pairs[:, 1], s=14, color=colour, alpha=0.5, linewidths=0)
        spots[name] = np.array([mean_of(clock), mean_of(values)])
        every += [pairs, spots[name][None]]
        size = 11 if name == OURS else 8
        axis.plot(*spots[name], "o", color=colour, markersize=size, markerfacecolor=inside or colour)
    if len(front) > 1:
        line = np.array([spots[name] for name in front])
        axis.plot(*line.T, color=theme.muted, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    _logarithmic(axis, np.concatenate(every), additive=metric.additive)
    _annotate(figure, axis, spots, theme, order)
    axis.set(xlabel="fit time, s (less than 1 ms is drawn at 1 ms)", ylabel=f"{metric.title} (down and left is better)")
    return figure


def _logarithmic(axis: Axes, points: np.ndarray[Any, Any], *, additive: bool = False) -> None:
    """Axes with room for names around the points; heights whose differences count are drawn as they are."""
    x, y = points.T
    axis.set(xscale="log", xlim=_around(x))
    plain_ticks(axis.xaxis)
    if additive:
        margin = 0.15 * float(np.ptp(y)) or 1.0
        axis.set_ylim(y.min() - margin, y.max() + margin)
    else:
        axis.set(yscale="log", ylim=_around(y))
        plain_ticks(axis.yaxis)


def _around(values: np.ndarray[Any, Any]) -> tuple[float, float]:
    positive = values[values > 0] if (values > 0).any() else np.array([1.0])
    return float(positive.min() / 3), float(positive.max() * 4)


def _annotate(
    figure: Figure, axis: Axes, spots: Mapping[str, np.ndarray[Any, Any]], theme: Theme, order: Sequence[str]
) -> None:
    """Names beside the points, each at the first place that no other name or point has."""
    figure.draw_without_rendering()  # settles where things are
    taken = [_around_pixel(axis.transData.transform(spot)) for spot in spots.values()]
    for name in sorted(spots, key=lambda name: tuple(spots[name])):
        places: list[tuple[int, int, Any, Bbox]] = []
        for offset, across, up in _PLACES:
            label = axis.annotate(
                name,
                (float(spots[name][0]), float(spots[name][1])),
                xytext=offset,
                textcoords="offset points",
                ha=across,
                va=up,
                color=theme.colour(name, OURS, order),
                fontsize=10,
                fontweight="bold" if name == OURS else "normal",
            )
            box = label.get_window_extent()
            places.append((box.count_overlaps(taken), len(places), label, box))
            if places[-1][0] == 0:
                break
        best = min(places)[1]
        for _, index, label, box in places:
            if index == best:
                taken.append(box)
            else:
                label.remove()


def _around_pixel(place: np.ndarray[Any, Any]) -> Bbox:
    from matplotlib.transforms import Bbox

    return Bbox.from_bounds(place[0] - 4, place[1] - 4, 8, 8)


def _over_time(records: Sequence[Record]) -> Plot | None:
    """L2-UVP of maps that were watched, over the time of their fits."""
    watched = [record for record in records if len(record["details"].get("curve", ())) > 1]
    if not watched:
        return None
    last = {record["method"]: record["details"]["curve"][-1] for record in watched}
    told = ", ".join(f"{name} {number(value)}% after {number(time)} s" for name, (time, value) in last.items())
    told = f"The last point of each curve: {told} (the last seed, on the first {CURVE_POINTS:,} points that judge). "
    told += "Dots are methods that have no error before they end, on all points."
    quality, times, counted = by_method(records, "l2_uvp"), _drawn_times(records), by_method(records, "fit_seconds")
    dots = {name: np.array([mean_of(times[name]), mean_of(quality[name])]) for name in quality if name not in last}
    if any(not _counts(record, counted) for record in watched) or not dots.keys() <= counted.keys():
        told += " Dashed or hollow: the time was taken on another or a shared machine; it does not count."
    return Plot(
        "over-time",
        "Error over the time of the fit",
        told,
        "L2-UVP over wall-clock time, a line for each seed of each method that can be watched.",
        Picture(lambda theme: _draw_over_time(watched, dots, counted, theme)),
    )


def _counts(record: Record, counted: Mapping[str, Mapping[int, float]]) -> bool:
    return record["seed"] in counted.get(record["method"], ())


def _draw_over_time(
    watched: Sequence[Record],
    dots: Mapping[str, np.ndarray[Any, Any]],
    counted: Mapping[str, Mapping[int, float]],
    theme: Theme,
) -> Figure:
    figure, (axis,) = panels(1, theme, height=4.0, across=1)
    order = [*dict.fromkeys(record["method"] for record in watched), *dots]
    spots, every = {}, []
    for record in watched:
        name, curve = record["method"], np.array(record["details"]["curve"])
        width, line = 2 if name == OURS else 1.2, "solid" if _counts(record, counted) else "dashed"
        axis.plot(*curve.T, color=theme.colour(name, OURS, order), linewidth=width, linestyle=line, alpha=0.8)
        spots[name] = curve[-1]
        every.append(curve)
    for name, (time, value) in dots.items():
        spots[name] = np.array([max(time, _LEAST_SECONDS), value])
        colour = theme.colour(name, OURS, order)
        axis.plot(*spots[name], "o", color=colour, markersize=7, markerfacecolor=colour if name in counted else "none")
    _logarithmic(axis, np.concatenate([np.array(list(spots.values())), *every]))
    _annotate(figure, axis, spots, theme, order)
    axis.set(xlabel="wall-clock time, s", ylabel="L2-UVP, %")
    return figure


def _maps(records: Sequence[Record]) -> Plot | None:
    """Where points go, in two dimensions, for the first seed."""
    drawn = [record for record in records if "points" in record["details"]]
    drawn = [record for record in drawn if record["seed"] == min(one["seed"] for one in drawn)]
    if not drawn:
        return None
    source, target = (np.array(drawn[0]["details"]["points"][side]) for side in ("source", "target"))
    images = {record["method"]: np.array(record["details"]["points"]["image"]) for record in drawn}
    return Plot(
        "maps",
        "Where points go",
        f"Arrows from fresh source points to their images; seed {drawn[0]['seed']}.",
        "For every method, arrows from source points to where the map sends them, over source and target.",
        Picture(lambda theme: displacement(source, target, images, theme, ours=OURS, columns=("x₁", "x₂"))),
    )
