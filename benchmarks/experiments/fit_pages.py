"""Tables and pictures of experiments whose networks are fitted under two protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.experiments.pages import OURS, medians, order_of, part, seeds_cell, won
from benchmarks.metrics import by_method
from ot_lift.report_figures import Plot
from ot_lift.report_tables import Cell, Column, Row, Table
from ot_lift.report_theme import Picture, Theme, panels, plain_ticks
from ot_lift.report_words import number, seconds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = Mapping[str, Any]
Places = Mapping[str, Sequence[Record]]  # records by the title of what they were fitted to
COSTS = "Medians over every fit of both protocols; the wall-clock time, where it counts."

PROTOCOLS = ("tuned", "paper")
_ACROSS = 3  # panels in a row
_LEAST = 1e-6  # a figure at or below is drawn there where the axis is logarithmic


def results_of(records: Sequence[Record]) -> list[Record]:
    """All but those that tune."""
    return [record for record in records if record["settings"]["task"]["protocol"] != "tuning"]


def protocols_of(records: Sequence[Record]) -> list[str]:
    """Those that there are records of."""
    return [name for name in PROTOCOLS if part(records, protocol=name)]


def under(records: Sequence[Record], protocol: str, untrained: Sequence[str] = ()) -> list[Record]:
    """Records of a protocol; those of untrained methods are the same under each.

    Example:
        >>> one = {"method": "Gaussian", "settings": {"task": {"protocol": "paper"}}}
        >>> len(under([one], "tuned")), len(under([one], "tuned", ["Gaussian"]))
        (0, 1)
    """
    return [
        record
        for record in records
        if record["settings"]["task"]["protocol"] == protocol or record["method"] in untrained
    ]


def values_table(places: Places, methods: Sequence[str], key: str, unit: str) -> Table:
    """Median over seeds by method and place, every seed below it.

    Args:
        places: Records by heading.
        methods: In their order; those without a record are left out.
        key: Of the figure.
        unit: Under every heading.
    """
    order = order_of([record for own in places.values() for record in own], methods)
    rows = tuple(
        Row(name, name == OURS, tuple(seeds_cell(mine, name, key) for mine in places.values())) for name in order
    )
    return Table((Column("method"), *(Column(title, unit) for title in places)), rows)


def wins_table(by_protocol: Mapping[str, Places], methods: Sequence[str], key: str) -> Table:
    """Seeds at which the lift's figure is the smaller one, of those that both have.

    Args:
        by_protocol: Records by protocol and heading; a protocol without a name is not told.
        methods: The others, in their order.
        key: Of the figure.
    """
    titles = list(dict.fromkeys(title for places in by_protocol.values() for title in places))
    rows = []
    for protocol, places in by_protocol.items():
        for name in methods:
            pairs = [won(places.get(title, []), name, key) for title in titles]
            if name != OURS and any(count for _, count in pairs):
                cells = tuple(Cell(f"{w} of {n}", w / n) if n else Cell("–") for w, n in pairs)
                rows.append(Row(f"{name}, {protocol}" if protocol else name, False, cells))
    return Table((Column("against"), *(Column(title) for title in titles)), tuple(rows))


def costs_table(records: Sequence[Record], methods: Sequence[str]) -> Table:
    """Trained numbers, time of a fit, share of weights on the shoulder, step sizes chosen.

    Args:
        records: Of an experiment, those that tune among them.
        methods: In their order.
    """
    results = results_of(records)
    numbers, times, shoulder = (medians(results, key) for key in ("parameters", "fit_seconds", "shoulder_share"))
    chosen = _chosen(records)
    rows = []
    for name in order_of(results, methods):
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
    tuning: dict[str, list[Record]] = {}
    for record in part(records, protocol="tuning"):
        place = record["task"].removeprefix(f"{record['settings']['task']['experiment']}-").removesuffix("-tuning")
        tuning.setdefault(place, []).append(record)
    for place, own in tuning.items():
        for name, rates in by_method(own, "learning_rate").items():
            found.setdefault(name, []).append(f"{place} {', '.join(f'{rate:g}' for rate in rates.values())}")
    return {name: " · ".join(lines) for name, lines in found.items()}


def dots(key: str, title: str, places: Places, figure: str, label: str, *, methods: Sequence[str]) -> Plot:
    """A figure of every seed, a panel for each place, a row for each method.

    Args:
        key: Anchor of the plot.
        title: Its heading.
        places: Records by heading.
        figure: Its key.
        label: What it is, in a few words.
        methods: In their order.
    """
    return Plot(
        *(key, title, "A dot is a seed, a bar the median."),
        f"{label} by method, a panel for each target, a dot for each seed, logarithmic.",
        Picture(lambda theme: _draw_dots(places, figure, methods, theme)),
    )


def _draw_dots(places: Places, figure: str, order: Sequence[str], theme: Theme) -> Figure:
    drawn, axes = panels(len(places), theme, height=0.9 + 0.24 * len(order), across=_ACROSS)
    for place, (axis, (title, records)) in enumerate(zip(axes, places.items(), strict=True)):
        values = by_method(records, figure)
        for row, name in enumerate(order):
            if own := [max(value, _LEAST) for value in values.get(name, {}).values()]:
                colour = theme.colour(name, OURS, order)
                axis.plot(own, [row] * len(own), "o", color=colour, markersize=5, alpha=0.7, markeredgewidth=0)
                axis.plot([float(np.median(own))], [row], "|", color=colour, markersize=16, markeredgewidth=2)
        axis.set(xscale="log", yticks=range(len(order)), ylim=(len(order) - 0.5, -0.5))
        plain_ticks(axis.xaxis)
        axis.set_yticklabels(order if place % _ACROSS == 0 else [])
        axis.set_title(title, color=theme.ink, fontsize=10, loc="left")
    return drawn


def against(places: Places, rivals: Sequence[str], key: str, what: str) -> list[str]:
    """A sentence for each place: the lift's median beside those of its rivals, whichever is smaller.

    Args:
        places: Records by heading.
        rivals: Names of methods.
        key: Of the figure.
        what: The figure, in a sentence.

    Example:
        >>> def one(method: str, value: float) -> dict[str, object]:
        ...     return {"method": method, "seed": 0, "status": "ok", "figures": {"x": value}}
        >>> against({"here": [one("lift", 1.0), one("softplus", 2.0)]}, ["softplus"], "x", "the loss")
        ['here: the loss of the lift is 1.00, below softplus (2.00).']
    """
    told = []
    for title, records in places.items():
        middle = medians(records, key)
        if OURS not in middle or not any(name in middle for name in rivals):
            continue
        parts = [
            f"{'below' if middle[OURS] < middle[name] else 'not below'} {name} ({number(middle[name])})"
            for name in rivals
            if name in middle
        ]
        told.append(f"{title}: {what} of the lift is {number(middle[OURS])}, {', '.join(parts)}.")
    return told
