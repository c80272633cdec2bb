"""The page of `landscape`: surfaces with paths, and how far from convex they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.experiments import Page
from benchmarks.experiments.likelihood_page import by_place
from benchmarks.experiments.pages import OURS, medians, order_of, seeds_cell
from benchmarks.metrics import percent
from ot_lift.report_figures import Plot
from ot_lift.report_tables import Cell, Column, Row, Table
from ot_lift.report_theme import Picture, Theme, panels
from ot_lift.report_words import names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = Mapping[str, Any]

_ORDER = (OURS, "lift's weights", "softplus", "projection", "ends")
_ENDS = ("lift", "softplus", "projection")
_FLOOR = 1e-3  # nats above the least loss of a surface: smaller ones are drawn as this
_EASIER = (
    ("not_convex_share", 1, "a smaller share is not convex"),
    ("basin_share", -1, "a larger share leads to its least point"),
    ("end_loss", 1, "the path ends lower"),
)
_METRICS = (
    (
        "not convex",
        "Share of second differences on the grid, four directions at each point, that are negative. A plane is as "
        "large as its path: one that stays near its start sees a simple surface, whatever its end is worth.",
    ),
    ("basin", "Share of the grid's points from which steps to the least neighbour lead to the least point of all."),
    ("in the plane", "Share of the path's squared distances from its end that the plane holds."),
    ("end", "The loss at the path's end, on the batch that surfaces are drawn with, nats."),
)


def page(records: Sequence[Record]) -> Page:
    """Findings, tables and pictures.

    Args:
        records: Of `landscape`, any of them.
    """
    tables = [
        (place, "Median over seeds, every seed below it. Bold: the least median.", _table(own))
        for place, own in by_place(records).items()
    ]
    plots = [plot for place, own in by_place(records).items() for plot in _plots(own, place)]
    told = [_against(records, rival) for rival in ("softplus", "projection")]
    return Page([*filter(None, told)], tables, plots, _METRICS)


def _against(records: Sequence[Record], rival: str) -> str:
    """On how many targets the lift's plane is the easier one, by medians over seeds."""
    counts = []
    for key, sign, words in _EASIER:
        middle = [medians(own, key) for own in by_place(records).values()]
        both = [(one[OURS], one[rival]) for one in middle if {OURS, rival} <= one.keys()]
        if both:
            counts.append(f"{words} on {sum(sign * ours < sign * theirs for ours, theirs in both)} of {len(both)}")
    return f"Of the plane of the lift's path beside {rival}'s: {names(counts)}." if counts else ""


def _table(records: Sequence[Record]) -> Table:
    keys = ("not_convex_share", "basin_share", "plane_share")
    rows = []
    for name in order_of(records, _ORDER):
        own = [
            seeds_cell(records, name, key, lambda value: percent(None if value is None else 100 * value))
            for key in keys
        ]
        plain = [own[0], *(Cell(cell.text, cell.value, small=cell.small) for cell in own[1:])]  # more is no worse
        rows.append(Row(name, name == OURS, (*plain, seeds_cell(records, name, "end_loss"))))
    columns = (Column("plane"), Column("not convex"), Column("basin"), Column("in the plane"), Column("end", "nats"))
    return Table(columns, tuple(rows))


def _plots(records: Sequence[Record], place: str) -> list[Plot]:
    """Surfaces of the first seed."""
    first = min((record["seed"] for record in records if "surface" in record["details"]), default=None)
    shown = [record for record in records if record["seed"] == first and "surface" in record["details"]]
    own = {name: next(one for one in shown if one["method"] == name) for name in order_of(shown, _ORDER)}
    if not own:
        return []
    return [
        Plot(
            f"surface-{place}",
            f"Loss surfaces, {place}",
            "Loss above the least of its plane, logarithmic, bright where it is small; a white dot is where a path "
            "begins, a star where it ends. Each plane has its own directions, length and scale of brightness. The "
            "last one goes through three ends. The first seed.",
            f"The loss on planes as shades with the path of a fit on each, a panel for each of {', '.join(own)}.",
            Picture(lambda theme: _draw(own, theme)),
        )
    ]


def _draw(records: Mapping[str, Record], theme: Theme) -> Figure:
    figure, axes = panels(len(records), theme, height=3.2, across=3)
    for axis, (name, record) in zip(axes, records.items(), strict=True):
        details = record["details"]
        losses = np.array([[math.nan if one is None else one for one in row] for row in details["surface"]])
        shades = np.log10(np.maximum(losses - np.nanmin(losses), _FLOOR))
        axis.contourf(details["first"], details["second"], shades, levels=24, cmap="viridis_r")
        axis.grid(visible=False)
        path = np.array(details["path"])
        if name == "ends":
            for end, (x, y) in zip(_ENDS, path, strict=True):
                axis.plot(x, y, "*", color=theme.target, markersize=11)
                axis.annotate(
                    end, (x, y), color="white", fontsize=9, ha="center", textcoords="offset points", xytext=(0, 8)
                )
        else:
            axis.plot(*path.T, color=theme.target, linewidth=1.8, marker=".", markersize=4)
            axis.plot(*path[0], "o", color="white", markersize=6)
            axis.plot(*path[-1], "*", color=theme.target, markersize=12)
        axis.set_title(name, color=theme.ink, fontsize=10, loc="left")
    return figure
