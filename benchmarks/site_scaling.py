"""How costs grow: slopes on logarithmic axes, and where one method takes over from another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.methods import OURS
from benchmarks.metrics import BY_KEY, by_method, comparable, mean_of
from benchmarks.site_words import BASELINE, processors
from ot_lift.report_figures import Plot
from ot_lift.report_tables import Cell, Column, Row, Table
from ot_lift.report_theme import Picture, Theme, legend, panels, plain_ticks
from ot_lift.report_words import names

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
_ROOM = 0.15  # of an axis, for a label
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
        for own, others in lines(records, axis):
            growing = f"{'More' if axis == 'threads' else 'Growing'} {symbol}"
            tried = _tried(own, axis)
            working = [record for record in own if record["method"] != BASELINE]  # what does nothing costs nothing
            found = {key: series(own if key in _QUALITIES else working, axis, key) for key in _COSTS}
            costs = {key: by_name for key, by_name in found.items() if by_name}
            if axis == "threads":
                sentences += [speedups(costs[key], BY_KEY[key].title) for key in _COSTS if key in costs and _timed(key)]
            else:
                where = f"{growing} ({others})" if others else growing
                failed = _tried((record for record in own if record["status"] != "ok"), axis)
                races = (takeovers(costs[key], failed, BY_KEY[key].title) for key in _RACES if key in costs)
                own_costs = {key: by_name for key, by_name in costs.items() if key not in _QUALITIES}
                sentences += [f"{where}, {told}." for told in (*races, *variants(own_costs)) if told]
            key = "-".join([axis, *re.findall(r"[\d,]+", others)]).replace(",", "")
            sections.append(
                {
                    "key": key,
                    "title": f"{growing}, {words} ({others})",
                    "table": slope_table(costs, tried),
                    "plot": _plot(costs, key, symbol),
                }
            )
    sentences = sentences or ["No time counts: other work ran beside every cell."]
    return {"sentences": [*sentences, *processors(records)], "sections": sections}


def _timed(key: str) -> bool:
    return BY_KEY[key].timed


def _size(record: Record, axis: str) -> int:
    """0 where the record does not say, as on threads where their number is not the question."""
    return int(record["settings"]["task"].get(axis) or 0)


def lines(records: Sequence[Record], axis: str) -> list[tuple[list[Record], str]]:
    """The records of each line of sizes along an axis, and the line's other sizes in words.

    Lines with half as many sizes as the longest, or fewer, are parts of another axis; a single size is none.

    Args:
        records: Of all sizes.
        axis: "rows", "features" or "threads".
    """
    others = [other for other in _AXES if other != axis]
    found: dict[tuple[int, ...], list[Record]] = {}
    for record in records:
        if _size(record, axis):
            found.setdefault(tuple(_size(record, other) for other in others), []).append(record)
    lengths = {fixed: len({_size(record, axis) for record in own}) for fixed, own in found.items()}
    longest = max(lengths.values(), default=0)
    return [
        (
            found[fixed],
            ", ".join(f"{_AXES[name][0]} = {size:,}" for name, size in zip(others, fixed, strict=True) if size),
        )
        for fixed in sorted(found)
        if 1 < lengths[fixed] > longest / 2
    ]


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


def variants(costs: Mapping[str, Series]) -> list[str]:
    """What variants of ours cost, by the median over sizes of the share of ours.

    Args:
        costs: By figure, method and size.

    Example:
        >>> fits = {"ot-lift": {10: 1.0, 100: 2.0}, "ot-lift twice as wide": {10: 2.0, 100: 8.0}}
        >>> variants({"fit_seconds": fits, "transport_seconds": {}})
        ['ot-lift twice as wide beside ot-lift: fit 3.0 times as much, by the median over sizes']
    """
    told = []
    ours_too = (name for own in costs.values() for name in own if name.startswith(OURS) and name != OURS)
    for name in dict.fromkeys(ours_too):
        shares = []
        for key, own in costs.items():
            found, ours = own.get(name, {}), own.get(OURS, {})
            if len(both := found.keys() & ours.keys()) > 1:
                shares.append(f"{BY_KEY[key].title} {np.median([found[size] / ours[size] for size in both]):.1f}")
        if shares:
            told.append(f"{name} beside {OURS}: {', '.join(shares)} times as much, by the median over sizes")
    return told


def _tried(records: Iterable[Record], axis: str) -> dict[str, set[int]]:
    """Sizes of each method's records."""
    found: dict[str, set[int]] = {}
    for record in records:
        found.setdefault(record["method"], set()).add(_size(record, axis))
    return found


def series(records: Sequence[Record], axis: str, key: str) -> Series:
    """A figure's mean over seeds by method and size; times that do not count are left out."""
    found: Series = {}
    records = comparable(records, key)  # on all sizes, not on each
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


def takeovers(costs: Series, failed: Mapping[str, set[int]], title: str) -> str:
    """From where on ours costs less than each peer; a peer that did not end well at a size costs more there.

    Args:
        costs: By method and size; without those that do not count.
        failed: Sizes by method that it did not end well at.
        title: Of the cost.

    Example:
        >>> costs = {"ot-lift": {10: 5.0, 100: 5.0, 1000: 6.0}, "EMD": {10: 1.0, 100: 9.0}, "linear": {10: 1.0}}
        >>> takeovers(costs, {"EMD": {1000}}, "fit")
        'fit: less for ot-lift than for EMD from 100 on; up to the largest size less for linear than for ot-lift'
    """
    ours = costs.get(OURS, {})
    less, more = [], []
    for peer in sorted(costs.keys() | failed.keys()):
        own, least = costs.get(peer, {}), None
        sizes = sorted((own.keys() | failed.get(peer, set())) & ours.keys())
        if peer.startswith(OURS) or not sizes:
            continue
        for size in reversed(sizes):
            if own.get(size, np.inf) <= ours[size]:
                break
            least = size
        if least is None:
            more.append(peer)
            continue
        where = "at every size" if least == sizes[0] else f"from {least:,} on"
        less.append(f"than for {peer} {where}" + ("" if least in own else ", where it has no result"))
    told = [f"less for {OURS} {', '.join(less)}"] if less else []
    told += [f"up to the largest size less for {names(more)} than for {OURS}"] if more else []
    if told and (none := sorted(failed.get(OURS, ()))):
        told.append(f"{OURS} has no result at {names([f'{size:,}' for size in none])}")
    return f"{title}: {'; '.join(told)}" if told else ""


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


def _plot(costs: Mapping[str, Series], key: str, symbol: str) -> Plot:
    return Plot(
        f"costs-{key}",
        f"Costs over {symbol}",
        "Means over seeds; a line that ends early is a method that ran out of time or memory.",
        f"Costs by method over {symbol}, logarithmic axes.",
        Picture(lambda theme: _draw(costs, symbol, theme)),
    )


def _apart(sizes: Sequence[int]) -> list[int]:
    """Those that have room for a label on a logarithmic axis, from the largest on.

    Example:
        >>> _apart([500, 1_000, 2_000, 10_000, 1_000_000])
        [500, 2000, 10000, 1000000]
    """
    least = (sizes[-1] / sizes[0]) ** _ROOM
    kept: list[int] = []
    for size in reversed(sizes):
        if not kept or kept[-1] / size >= least:
            kept.append(size)
    return kept[::-1]


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
        panel.set_xticks(_apart(sorted({size for own in found.values() for size in own})))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(FuncFormatter(lambda size, place: f"{size:,.0f}"))
        plain_ticks(panel.yaxis)
    legend(figure, [Line2D([], [], color=theme.colour(name, OURS, order), label=name) for name in order], theme)
    return figure
