"""What the pages of experiments share: values by part, method and seed; cells with every seed; curves over training."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.metrics import by_method, figure_of
from ot_lift.report_figures import Plot
from ot_lift.report_tables import Cell
from ot_lift.report_theme import Picture, Theme, legend, panels, plain_ticks
from ot_lift.report_words import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = Mapping[str, Any]
Show = Callable[[float | None], str]

OURS = "lift"
_ACROSS = 3  # panels in a row


def part(records: Sequence[Record], **settings: Any) -> list[Record]:
    """Records whose task has these settings.

    Example:
        >>> found = part([{"settings": {"task": {"protocol": "paper"}}}], protocol="paper")
        >>> len(found), len(part(found, protocol="tuned"))
        (1, 0)
    """
    return [
        record
        for record in records
        if all(record["settings"]["task"].get(name) == value for name, value in settings.items())
    ]


def settings_of(records: Sequence[Record], name: str) -> list[Any]:
    """The values that a setting of the task has, in the order of the records."""
    return list(dict.fromkeys(record["settings"]["task"][name] for record in records))


def order_of(records: Sequence[Record], names: Sequence[str]) -> list[str]:
    """The methods that there are records of, in the order of `names`."""
    there = {record["method"] for record in records}
    return [name for name in names if name in there]


def medians(records: Sequence[Record], key: str) -> dict[str, float]:
    """Median of a figure over records, by method.

    Example:
        >>> def one(task: str, value: float) -> dict[str, object]:
        ...     return {"task": task, "method": "lift", "seed": 0, "status": "ok", "figures": {"nll": value}}
        >>> medians([one("a", 1.0), one("b", 2.0), one("c", 5.0)], "nll")
        {'lift': 2.0}
    """
    found: dict[str, list[float]] = {}
    for record in records:
        if (value := figure_of(record, key)) is not None:
            found.setdefault(record["method"], []).append(value)
    return {name: statistics.median(values) for name, values in found.items()}


def seeds_cell(records: Sequence[Record], method: str, key: str, show: Show = number) -> Cell:
    """Median of a figure with every seed under it; a failure in words; bold where no method has a smaller median."""
    own = [record for record in records if record["method"] == method]
    values = by_method(own, key).get(method)
    if not values:
        return Cell(own[0]["status"] if own and own[0]["status"] != "ok" else "–")
    middle = statistics.median(values.values())
    every = [show(values[seed]) for seed in sorted(values)]
    lost = len(own) - len(values)
    small = " · ".join([*every, *([f"{lost} failed"] if lost else [])]) if len(own) > 1 else ""
    return Cell(show(middle), middle, middle <= min(medians(records, key).values()), small)


def won(records: Sequence[Record], other: str, key: str) -> tuple[int, int]:
    """At how many seeds the lift has the smaller figure, and how many seeds both have.

    Example:
        >>> def one(method: str, seed: int, value: float) -> dict[str, object]:
        ...     return {"method": method, "seed": seed, "status": "ok", "figures": {"x": value}}
        >>> won([one("lift", 0, 1.0), one("softplus", 0, 2.0), one("softplus", 1, 3.0)], "softplus", "x")
        (1, 1)
    """
    values = by_method(records, key)
    ours, theirs = values.get(OURS, {}), values.get(other, {})
    seeds = ours.keys() & theirs.keys()
    return sum(ours[seed] < theirs[seed] for seed in seeds), len(seeds)


def failures(records: Sequence[Record]) -> list[str]:
    """A sentence for every record of a failure."""
    return [
        f"{record['task']} × {record['method']}, seed {record['seed']}: {record['reason']}"
        for record in records
        if record["status"] != "ok"
    ]


def curves(
    key: str,
    title: str,
    sentence: str,
    records: Mapping[str, Sequence[Record]],
    column: int,
    label: str,
    *,
    methods: Sequence[str],
    shift: Mapping[str, float] | None = None,
    least: float | None = None,
    whole: bool = True,
    source: str = "curve",
) -> Plot | None:
    """A figure over the steps of training: a thin line for each seed, a strong one for the median.

    Args:
        key: anchor of the plot.
        title: its heading.
        sentence: its caption.
        records: by the title of their panel; those without such details are left out.
        column: of the curve's rows, whose first is the step.
        label: of the vertical axis.
        methods: in their order.
        shift: subtracted from the figure, by panel.
        least: where given, the axis is logarithmic and smaller values are drawn there.
        whole: whether the vertical axis holds every value, or ends at the largest median after the first look.
        source: name of the curve among the details.

    Returns:
        None without a curve.
    """
    drawn: dict[str, dict[str, list[np.ndarray[Any, Any]]]] = {}
    for panel, own in records.items():
        for record in own:
            rows = [row for row in record["details"].get(source, ()) if row[column] is not None]
            if rows and record["method"] in methods:
                points = np.array(rows, dtype=float)[:, [0, column]]
                points[:, 1] -= (shift or {}).get(panel, 0.0)
                if least is not None:
                    points[:, 1] = np.maximum(points[:, 1], least)
                drawn.setdefault(panel, {}).setdefault(record["method"], []).append(points)
    if not drawn:
        return None
    alt = f"{label} over the steps of training, a panel for each of {', '.join(drawn)}, a line for each method."
    return Plot(key, title, sentence, alt, Picture(lambda theme: _curves(drawn, methods, label, least, whole, theme)))


def _curves(
    drawn: Mapping[str, Mapping[str, Sequence[np.ndarray[Any, Any]]]],
    methods: Sequence[str],
    label: str,
    least: float | None,
    whole: bool,
    theme: Theme,
) -> Figure:
    figure, axes = panels(len(drawn), theme, height=2.6, across=_ACROSS)
    handles: dict[str, Any] = {}
    for axis, (panel, by_name) in zip(axes, drawn.items(), strict=True):
        later = []
        for name in (name for name in reversed(methods) if name in by_name):  # ours is drawn last
            own, colour = by_name[name], theme.colour(name, OURS, methods)
            for points in own if len(own) > 1 else ():
                axis.plot(*points.T, color=colour, linewidth=0.6, alpha=0.35)
            same = [points for points in own if len(points) == len(own[0])]
            middle = np.median(np.stack(same), axis=0)
            handles[name] = axis.plot(*middle.T, color=colour, linewidth=2.2 if name == OURS else 1.3, label=name)[0]
            later += list(middle[1:, 1])
        if least is not None:
            axis.set_yscale("log")
            plain_ticks(axis.yaxis)
        if not whole and later:
            low = min(points[:, 1].min() for own in by_name.values() for points in own)
            margin = 0.06 * (max(later) - low)
            axis.set_ylim(low - margin, max(later) + margin)
        axis.set_title(panel, color=theme.ink, fontsize=10, loc="left")
    axes[0].set_ylabel(label)
    axes[-1].set_xlabel("steps")
    legend(figure, [handles[name] for name in methods if name in handles], theme)
    return figure
