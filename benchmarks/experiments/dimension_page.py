"""The page of `dimension`: likelihood above the entropy by method, family, dimension, protocol and seed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.experiments import Page
from benchmarks.experiments.fit_pages import (
    COSTS,
    costs_table,
    protocols_of,
    results_of,
    under,
    values_table,
    wins_table,
)
from benchmarks.experiments.flows import GAUSSIAN, MODELS
from benchmarks.experiments.pages import OURS, failures, medians, order_of, part, settings_of, won
from benchmarks.metrics import by_method
from ot_lift.report_figures import Plot
from ot_lift.report_tables import Cell, Column, Row, Table
from ot_lift.report_theme import Picture, Theme, legend, panels, plain_ticks
from ot_lift.report_words import names, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = Mapping[str, Any]

_KEY = "excess_nll"
_METHODS, _UNTRAINED = (*MODELS, GAUSSIAN), (GAUSSIAN,)
_RIVALS = ("softplus", "projection", "unscaled softplus")
_LEAST = 1e-4  # nats; what is less is drawn there
_METRICS = (
    (
        "above the entropy",
        "Mean of log p − log q over 10,000 fresh points, nats: the flow's NLL less the density's own on the same "
        "points, whose mean is the entropy. The difference of both has less noise than either.",
    ),
    (
        "advantage",
        "A rival's median above the entropy less the lift's, in nats and as a share of the rival's. All figures grow "
        "with dimension, as there is more to fit, so that a share says more.",
    ),
)


def page(records: Sequence[Record]) -> Page:
    """Findings, tables and pictures.

    Args:
        records: Of `dimension`, any of them.
    """
    results = results_of(records)
    order = order_of(results, _METHODS)
    tables: list[tuple[str, str, Table]] = []
    plots, told = [], []
    by_protocol = {name: _trained(under(results, name, _UNTRAINED)) for name in protocols_of(results)}
    places = {protocol: own for protocol, own in by_protocol.items() if own}
    told += [_wins_sentence(own, protocol) for protocol, own in places.items()]
    for protocol, own in places.items():
        told += [_growth(own, protocol, rival) for rival in _RIVALS]
        for family in settings_of(own, "target"):
            of_family = _by_dimension(part(own, target=family))
            tables.append(
                (
                    f"{family.capitalize()}, {protocol}",
                    "Above the entropy: median over seeds, every seed below it. Bold: the least median.",
                    values_table(of_family, order, _KEY, "nats"),
                )
            )
        plots.append(_plot(own, order, protocol))
    tables += [
        (
            "The lift's advantage",
            "A rival's median above the entropy less the lift's, and what share of the rival's that is.",
            _advantages(places),
        ),
        (
            "Seeds that the lift wins",
            "Seeds at which the lift's NLL is smaller, of those that both have, over all families.",
            _wins(places, order),
        ),
        ("What a fit takes", COSTS, costs_table(records, order)),
    ]
    return Page([*filter(None, told), *failures(records)], tables, plots, _METRICS)


def _trained(records: Sequence[Record]) -> list[Record]:
    """Those of families that any trained method has a record of."""
    there = {record["settings"]["task"]["target"] for record in records if record["method"] not in _UNTRAINED}
    return [record for record in records if record["settings"]["task"]["target"] in there]


def _by_dimension(records: Sequence[Record]) -> dict[str, list[Record]]:
    return {f"d = {d}": part(records, features=d) for d in sorted(settings_of(records, "features"))}


def _wins_sentence(records: Sequence[Record], protocol: str) -> str:
    """Seeds that the lift wins against each rival, over all families and dimensions above one, and at one."""
    told = []
    places = _by_dimension(_seeds_apart(records))
    for rival in _RIVALS:
        counts = {place: won(own, rival, _KEY) for place, own in places.items()}
        above = [counts[place] for place in counts if place != "d = 1"]
        if n := sum(n for _, n in above):
            line, line_n = counts.get("d = 1", (0, 0))
            alone = f" (on the line {line} of {line_n})" if line_n else ""
            told.append(f"{sum(w for w, _ in above)} of {n} against {rival}{alone}")
    return f"Protocol {protocol}: of its seeds above one dimension the lift wins {names(told)}." if told else ""


def _advantage(records: Sequence[Record], rival: str) -> dict[str, tuple[float, float]]:
    """A rival's median less the lift's by dimension, in nats and as a share of the rival's."""
    found = {}
    for place, own in _by_dimension(records).items():
        middle = medians(own, _KEY)
        if OURS in middle and rival in middle:
            nats = middle[rival] - middle[OURS]
            found[place] = nats, nats / middle[rival]
    return found


def _growth(records: Sequence[Record], protocol: str, rival: str) -> str:
    """Whether the advantage over a rival grows with dimension, family by family, and where its share is largest."""
    nats, shares = [], []
    for family in settings_of(records, "target"):
        found = _advantage(part(records, target=family), rival)
        if len(found) > 1:
            most = max(found, key=lambda place: found[place][0])
            grows = all(one < two for (one, _), (two, _) in itertools.pairwise(found.values()))
            nats.append(f"on {family} it grows throughout" if grows else f"on {family} it is largest at {most}")
            largest = max(found, key=lambda place: found[place][1])
            shares.append(f"{100 * found[largest][1]:.0f}% at {largest} on {family}")
    if not nats:
        return ""
    return (
        f"Protocol {protocol}, the advantage over {rival} with dimension, in nats: {names(nats)}. As a share of the "
        f"rival's figure it is largest with {names(shares)}."
    )


def _advantages(places: Mapping[str, Sequence[Record]]) -> Table:
    titles = list(dict.fromkeys(place for own in places.values() for place in _by_dimension(own)))
    rows = []
    for protocol, own in places.items():
        for family in settings_of(own, "target"):
            for rival in _RIVALS:
                if found := _advantage(part(own, target=family), rival):
                    cells = [
                        Cell(number(found[one][0]), found[one][0], small=f"{100 * found[one][1]:.0f}%")
                        if one in found
                        else Cell("–")
                        for one in titles
                    ]
                    rows.append(Row(f"{family}, {rival}, {protocol}", False, tuple(cells)))
    return Table((Column("over"), *(Column(title, "nats") for title in titles)), tuple(rows))


def _wins(places: Mapping[str, Sequence[Record]], order: Sequence[str]) -> Table:
    return wins_table({protocol: _by_dimension(_seeds_apart(own)) for protocol, own in places.items()}, order, _KEY)


def _seeds_apart(records: Sequence[Record]) -> list[Record]:
    """Records whose seed counts the family too, so that equal seeds of two families are two pairs."""
    families = settings_of(records, "target")
    return [
        {**record, "seed": len(families) * record["seed"] + families.index(record["settings"]["task"]["target"])}
        for record in records
    ]


def _plot(records: Sequence[Record], order: Sequence[str], protocol: str) -> Plot:
    return Plot(
        *(f"dimension-{protocol}", f"Above the entropy against dimension, {protocol}"),
        f"A dot is a seed, a line goes through the medians; less than {_LEAST:g} is drawn there.",
        "Nats above the entropy over dimension, a panel for each family, a line for each method, both logarithmic.",
        Picture(lambda theme: _draw(records, order, theme)),
    )


def _draw(records: Sequence[Record], order: Sequence[str], theme: Theme) -> Figure:
    families = settings_of(records, "target")
    figure, axes = panels(len(families), theme, height=3.2, across=3)
    handles: dict[str, Any] = {}
    for axis, family in zip(axes, families, strict=True):
        own = part(records, target=family)
        dimensions = sorted(settings_of(own, "features"))
        for name in reversed(order):
            values = {d: by_method(part(own, features=d), _KEY).get(name, {}) for d in dimensions}
            middle = {d: medians(part(own, features=d), _KEY).get(name) for d in dimensions}
            line = [(d, max(value, _LEAST)) for d, value in middle.items() if value is not None]
            if not line:
                continue
            colour, width = theme.colour(name, OURS, order), 2.2 if name == OURS else 1.3
            (handles[name],) = axis.plot(*zip(*line, strict=True), color=colour, linewidth=width, label=name)
            dots = [(d, max(value, _LEAST)) for d, seeds in values.items() for value in seeds.values()]
            axis.plot(*zip(*dots, strict=True), "o", color=colour, markersize=4, alpha=0.6, markeredgewidth=0)
        axis.set(xscale="log", yscale="log", xticks=dimensions, xticklabels=[str(d) for d in dimensions])
        axis.minorticks_off()
        plain_ticks(axis.yaxis)
        axis.set_title(family, color=theme.ink, fontsize=10, loc="left")
    axes[0].set_ylabel("nats above the entropy")
    axes[-1].set_xlabel("dimension")
    legend(figure, [handles[name] for name in order if name in handles], theme)
    return figure
