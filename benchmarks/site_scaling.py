"""How costs grow: slopes on logarithmic axes, and where one method takes over from another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.methods import OURS
from benchmarks.metrics import BY_KEY, by_method, mean_of
from benchmarks.site_words import BASELINE
from ot_lift.report_figures import Plot
from ot_lift.report_tables import Cell, Column, Row, Table
from ot_lift.report_theme import Picture, Theme, legend, panels, plain_ticks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = Mapping[str, Any]
Series = dict[str, dict[int, float]]

SLOPES = "A slope of 1 is a cost in proportion to the size, over the largest three sizes that ended well."
_AXES = {"rows": ("n", "points"), "features": ("d", "dimensions"), "threads": ("threads", "cores that may work")}
_COSTS = (
    *("fit_seconds", "transport_seconds", "invert_seconds", "score_seconds", "sample_seconds", "peak_memory_bytes"),
    *("l2_uvp", "excess"),
)
_QUALITIES = ("l2_uvp", "excess")
_RACES = ("fit_seconds", "score_seconds", "peak_memory_bytes")
_TITLES = {
    "fit_seconds": "fit, s",
    "transport_seconds": "transport of 100,000 points, s",
    "invert_seconds": "inverse of 1,000 points, s",
    "score_seconds": "log-densities of 10,000 points, s",
    "sample_seconds": "10,000 samples, s",
    "peak_memory_bytes": "memory, bytes",
    "l2_uvp": "L2-UVP, %",
    "excess": "NLL above the truth's, nats",
}


def is_scaling(records: Sequence[Record]) -> bool:
    """Whether a task's records are of one size among several."""
    return bool(records[0]["settings"]["task"].get("uncapped"))


def scaling_content(records: Sequence[Record]) -> dict[str, Any]:
    """Sentences, tables and plots of the records of all sizes, for the site's template."""
    sentences, sections = [], []
    for axis, (symbol, words) in _AXES.items():
        own, others = along(records, axis)
        if len({_size(record, axis) for record in own}) < 2:
            continue
        verb = "More" if axis == "threads" else "Growing"
        tried = _tried(own, axis)
        working = [record for record in own if record["method"] != BASELINE]  # what does nothing costs nothing
        costs = {key: found for key in _COSTS if (found := series(own if key in _QUALITIES else working, axis, key))}
        if axis == "threads":
            sentences += [speedups(costs[key], BY_KEY[key].title) for key in _COSTS if key in costs and _timed(key)]
        else:
            for key in _RACES:
                if key in costs:
                    sentences += takeovers(costs[key], tried, symbol, BY_KEY[key].title)
            sentences += variants({key: own for key, own in costs.items() if key not in _QUALITIES}, symbol)
        sections.append(
            {
                "key": axis,
                "title": f"{verb} {symbol}, {words} ({others})",
                "table": slope_table(costs, tried),
                "plot": _plot(costs, axis, symbol),
            }
        )
    return {"sentences": sentences or ["No time counts: other work ran beside every cell."], "sections": sections}


def _timed(key: str) -> bool:
    return BY_KEY[key].timed


def _size(record: Record, axis: str) -> int:
    """0 where the record does not say, as on threads where their number is not the question."""
    return int(record["settings"]["task"].get(axis) or 0)


def along(records: Sequence[Record], axis: str) -> tuple[list[Record], str]:
    """The records of one line of sizes: all those whose other sizes are those with the most sizes, and these in words.

    Args:
        records: Of all sizes.
        axis: "rows", "features" or "threads".

    Returns:
        No records where none says its size on the axis.
    """
    others = [other for other in _AXES if other != axis]
    lines: dict[tuple[int, ...], list[Record]] = {}
    for record in records:
        if _size(record, axis):
            lines.setdefault(tuple(_size(record, other) for other in others), []).append(record)
    if not lines:
        return [], ""
    fixed = max(lines, key=lambda sizes: len({_size(record, axis) for record in lines[sizes]}))
    told = [f"{_AXES[other][0]} = {size:,}" for other, size in zip(others, fixed, strict=True) if size]
    return lines[fixed], ", ".join(told)


def speedups(costs: Series, title: str) -> str:
    """How many times as fast the most threads are as the fewest, for every method that ended well with both.

    Example:
        >>> speedups({"ot-lift": {1: 3.0, 2: 2.0}, "EMD": {1: 1.0, 2: 1.0}, "slow": {2: 9.0}}, "fit")
        'With 2 threads instead of 1, fit: ot-lift 1.5, EMD 1.0 times as fast.'
    """
    pairs = {name: (min(own), max(own)) for name, own in costs.items() if len(own) > 1}
    if not pairs:
        return f"With one number of threads alone, {title} has no comparison."
    few, many = next(iter(pairs.values()))
    told = ", ".join(f"{name} {costs[name][low] / costs[name][high]:.1f}" for name, (low, high) in pairs.items())
    return f"With {many} threads instead of {few}, {title}: {told} times as fast."


def variants(costs: Mapping[str, Series], symbol: str) -> list[str]:
    """What variants of ours cost, by the median over sizes of the share of ours.

    Args:
        costs: By figure, method and size.
        symbol: Of the size.

    Example:
        >>> fits = {"ot-lift": {10: 1.0, 100: 2.0}, "ot-lift twice as wide": {10: 2.0, 100: 8.0}}
        >>> variants({"fit_seconds": fits, "transport_seconds": {}}, "n")
        ['Growing n, ot-lift twice as wide beside ot-lift: fit 3.0 times as much, by the median over sizes.']
    """
    told = []
    names = dict.fromkeys(name for own in costs.values() for name in own if name.startswith(OURS) and name != OURS)
    for name in names:
        shares = []
        for key, own in costs.items():
            found, ours = own.get(name, {}), own.get(OURS, {})
            if both := found.keys() & ours.keys():
                shares.append(f"{BY_KEY[key].title} {np.median([found[size] / ours[size] for size in both]):.1f}")
        if shares:
            times = f"{', '.join(shares)} times as much, by the median over sizes"
            told.append(f"Growing {symbol}, {name} beside {OURS}: {times}.")
    return told


def _tried(records: Iterable[Record], axis: str) -> dict[str, set[int]]:
    """Sizes that each method was run on, whatever came of it."""
    found: dict[str, set[int]] = {}
    for record in records:
        found.setdefault(record["method"], set()).add(_size(record, axis))
    return found


def series(records: Sequence[Record], axis: str, key: str) -> Series:
    """A figure's mean over seeds by method and size; times that do not count are left out."""
    found: Series = {}
    for size in sorted({_size(record, axis) for record in records}):
        for name, values in by_method([record for record in records if _size(record, axis) == size], key).items():
            found.setdefault(name, {})[size] = mean_of(values)
    return found


def slope(values: Mapping[int, float]) -> float | None:
    """Least-squares slope of the logarithm over the largest three sizes; None with fewer than two positive values.

    Example:
        >>> round(slope({10: 1.0, 100: 100.0, 1000: 10_000.0}), 6)
        2.0
    """
    points = [(size, values[size]) for size in sorted(values)[-3:] if values[size] > 0]
    if len(points) < 2:
        return None
    logarithms = np.log(np.array(points, dtype=float))
    return float(np.polyfit(logarithms[:, 0], logarithms[:, 1], 1)[0])


def takeovers(costs: Series, tried: Mapping[str, set[int]], symbol: str, title: str) -> list[str]:
    """From where on ours costs less than each peer; a peer that has not ended at a size costs more there.

    Args:
        costs: By method and size.
        tried: Sizes by method, with those that it did not end well on.
        symbol: Of the size.
        title: Of the cost.

    Example:
        >>> costs = {"ot-lift": {10: 5.0, 100: 5.0, 1000: 6.0}, "EMD": {10: 1.0, 100: 9.0}}
        >>> takeovers(costs, {"ot-lift": {10, 100, 1000}, "EMD": {10, 100, 1000}}, "n", "fit")
        ['Growing n, fit: from 100 on less for ot-lift than for EMD, which has no result at n = 1,000.']
    """
    ours = costs.get(OURS, {})
    told = []
    for peer, own in costs.items():
        if peer.startswith(OURS):
            continue
        sizes = sorted(tried[peer] & ours.keys())
        without = [size for size in sizes if size not in own]
        least = None
        for size in reversed(sizes):
            if own.get(size, np.inf) <= ours[size]:
                break
            least = size
        where = f", which has no result at {symbol} = {', '.join(f'{size:,}' for size in without)}" if without else ""
        if least is None:
            found = f"less for {peer} than for {OURS} up to the largest size"
        elif least == sizes[0]:
            found = f"less for {OURS} than for {peer} at every size"
        else:
            found = f"from {least:,} on less for {OURS} than for {peer}"
        told.append(f"Growing {symbol}, {title}: {found}{where}.")
    return told


def slope_table(costs: Mapping[str, Series], tried: Mapping[str, set[int]]) -> Table:
    """Slopes by method and cost, with the largest size that ended well beside the largest tried."""
    rows = []
    for name, sizes in tried.items():
        ended = {size for found in costs.values() for size in found.get(name, {})}
        most = max(ended, default=0)
        cells = [Cell(f"{most:,}" if ended else "–", most, small=f"of {max(sizes):,}")]
        for found in costs.values():
            value = slope(found.get(name, {}))
            cells.append(Cell("–") if value is None else Cell(f"{round(value, 2) + 0.0:.2f}", value))
        rows.append(Row(name, name.startswith(OURS), tuple(cells)))
    headings = [Column(BY_KEY[key].title, "slope") for key in costs]
    return Table((Column("method", sorted=True), Column("largest size", "that ended well"), *headings), tuple(rows))


def _plot(costs: Mapping[str, Series], axis: str, symbol: str) -> Plot:
    return Plot(
        f"costs-{axis}",
        f"Costs over {symbol}",
        "Means over seeds; a line that ends early is a method that ran out of time or memory.",
        f"Costs by method over {symbol}, logarithmic axes.",
        Picture(lambda theme: _draw(costs, symbol, theme)),
    )


def _draw(costs: Mapping[str, Series], symbol: str, theme: Theme) -> Figure:
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, NullLocator

    figure, axes = panels(len(costs), theme, height=3.4, across=2)
    order = list(dict.fromkeys(name for found in costs.values() for name in found))
    for (key, found), panel in zip(costs.items(), axes, strict=True):
        for name, own in found.items():
            points = np.array([(size, value) for size, value in sorted(own.items()) if value > 0]).reshape(-1, 2)
            width = 2 if name == OURS else 1.2
            panel.plot(*points.T, "o-", color=theme.colour(name, OURS, order), markersize=4, linewidth=width)
        panel.set(xscale="log", yscale="log", xlabel=symbol, title=_TITLES[key])
        panel.set_xticks(sorted({size for own in found.values() for size in own}))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(FuncFormatter(lambda size, place: f"{size:,.0f}"))
        plain_ticks(panel.yaxis)
    legend(figure, [Line2D([], [], color=theme.colour(name, OURS, order), label=name) for name in order], theme)
    return figure
