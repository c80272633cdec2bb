"""What the pages of `latents` and `tabular` share: test likelihoods by place, method, protocol and seed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.experiments.energies import ADMMS
from benchmarks.experiments.pages import OURS, curves, medians, order_of, part, seeds_cell, settings_of
from benchmarks.metrics import by_method
from ot_lift.report_figures import Plot
from ot_lift.report_tables import Cell, Column, Row, Table
from ot_lift.report_theme import Picture, Theme, panels
from ot_lift.report_words import names, seconds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = Mapping[str, Any]

KEY = "test_nll"
GAUSSIAN, SHRINKAGE = "Gaussian", "shrinkage Gaussian"
ORDER = (OURS, "softplus", "projection", *ADMMS, GAUSSIAN, SHRINKAGE)
SHOWN_PROTOCOLS = ("tuned", "paper")
METRICS = (
    ("test NLL", "Mean negative log-density of the test points, nats, in their own units; less is better."),
    (
        "shoulder",
        "Share of the constrained weights that are at most 0.0513: there softplus passes on under 5% of a step.",
    ),
)


def protocols_of(records: Sequence[Record]) -> list[str]:
    """The protocols, tuning aside, that there are trained records of."""
    trained = [record for record in records if record["method"] not in (GAUSSIAN, SHRINKAGE)]
    return [name for name in SHOWN_PROTOCOLS if part(trained, protocol=name)]


def of_protocol(records: Sequence[Record], protocol: str) -> list[Record]:
    """Records of a protocol; the Gaussians are the same under each."""
    return [
        record
        for record in records
        if record["settings"]["task"]["protocol"] == protocol or record["method"] in (GAUSSIAN, SHRINKAGE)
    ]


def by_place(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records by their task's place."""
    return {place: part(records, place=place) for place in settings_of(records, "place")}


def count(records: Sequence[Record], chain: Sequence[str]) -> str | None:
    """On how many places the medians of methods rise along a chain; in brackets, on how many they do on every seed.

    A difference of medians may be none. Places without all methods are not counted; None where no place has them.

    Args:
        records: Of one protocol.
        chain: Methods, the one that should be least first.

    Example:
        >>> def seeds(method: str, *values: float) -> list[dict[str, object]]:
        ...     own = {"settings": {"task": {"place": "a"}}, "status": "ok", "method": method}
        ...     return [{**own, "seed": seed, "figures": {"test_nll": one}} for seed, one in enumerate(values)]
        >>> both = seeds("lift", 1.0, 1.0, 3.0) + seeds("Gaussian", 2.0, 2.0, 2.0)
        >>> count(both, ["lift", "Gaussian"])
        'lift below Gaussian on 1 (0)'
    """
    by_median, by_seed = [], []
    places = by_place(records)
    for own in places.values():
        values = by_method(own, KEY)
        if all(name in values for name in chain):
            middle = medians(own, KEY)
            seeds = set.intersection(*(set(values[name]) for name in chain))
            by_median.append(_rises([middle[name] for name in chain]))
            by_seed.append(bool(seeds) and all(_rises([values[name][seed] for name in chain]) for seed in seeds))
    if not by_median:
        return None
    of = f" of {len(by_median)}" if len(by_median) < len(places) else ""
    return f"{' below '.join(chain)} on {sum(by_median)}{of} ({sum(by_seed)})"


def _rises(values: Sequence[float]) -> bool:
    return all(one < two for one, two in itertools.pairwise(values))


def sentences(records: Sequence[Record], chains: Sequence[Sequence[str]], what: str) -> list[str]:
    """The counts of every protocol, and what failed; `what` is what places are, in the plural."""
    told = []
    for protocol in protocols_of(records):
        own = of_protocol(records, protocol)
        if counts := [one for chain in chains if (one := count(own, chain)) is not None]:
            places = f"of {len(by_place(own))} {what} by medians over seeds (in brackets: on every seed)"
            told.append(f"Protocol {protocol}, {places}: {names(counts)}.")
    failed = [record for record in records if record["status"] != "ok"]
    return told + [
        f"{record['task']} × {record['method']}, seed {record['seed']}: {record['reason']}" for record in failed
    ]


def tables(records: Sequence[Record], what: str) -> list[tuple[str, str, Table]]:
    """Test likelihoods by protocol, and what a fit takes.

    Args:
        records: Tuning left out.
        what: What a place is.
    """
    order = order_of(records, ORDER)
    found = []
    for protocol in protocols_of(records):
        rows = tuple(
            Row(place, False, tuple(seeds_cell(own, name, KEY) for name in order))
            for place, own in by_place(of_protocol(records, protocol)).items()
        )
        table = Table((Column(what), *(Column(name, "test NLL") for name in order)), rows)
        told = "Nats. Median over seeds, every seed below it. Bold: the least median."
        found.append((f"Test likelihood, {protocol}", told, table))
    told = "Medians over every fit of both protocols."
    return [*found, ("What a fit takes", told, _costs(records))]


def _costs(records: Sequence[Record]) -> Table:
    """A row for each method, and each model where there are several."""
    kinds = list(dict.fromkeys(record["settings"]["task"].get("model") for record in records))
    rows: list[Row] = []
    for kind in kinds:
        own = part(records, model=kind)
        numbers, times, steps, shoulder = (
            medians(own, key) for key in ("parameters", "fit_seconds", "kept_step", "shoulder_share")
        )
        rows += [
            Row(
                name if len(kinds) == 1 else f"{name}, {kind}",
                name == OURS,
                (
                    Cell(f"{numbers[name]:,.0f}", numbers[name]),
                    Cell(seconds(times.get(name)), times.get(name)),
                    Cell(f"{steps[name]:,.0f}", steps[name]),
                    Cell(f"{100 * shoulder[name]:.0f}%", shoulder[name]),
                ),
            )
            for name in order_of(own, ORDER)
            if name in numbers
        ]
    columns = Column("method"), Column("trained numbers"), Column("fit"), Column("kept at", "step")
    return Table((*columns, Column("on the shoulder")), tuple(rows))


def plots(records: Sequence[Record], protocol: str, *, curve_places: Sequence[str]) -> list[Plot]:
    """Gains over the Gaussian with every seed, and validation loss over the steps at some places."""
    own = of_protocol(records, protocol)
    order = [name for name in order_of(own, ORDER) if name != GAUSSIAN]
    gains = {place: gain for place, some in by_place(own).items() if (gain := _gains(some, order))}
    found: list[Plot] = []
    if gains:
        picture = Picture(lambda theme: draw_gains(gains, order, theme))
        alt = "Test NLL less the Gaussian's by method, a panel for each set of points, a dot for each seed."
        told = "Nats; under 0 is better than the Gaussian with full covariance. A dot is a seed, a bar the median."
        found.append(Plot(f"gains-{protocol}", f"Test NLL less the Gaussian's, {protocol}", told, alt, picture))
    panels_ = {place: some for place, some in by_place(own).items() if place in curve_places}
    drawn = curves(
        f"validation-{protocol}",
        f"Validation loss, {protocol}",
        "Of the weights at that step, nats; an axis ends at the largest median after the first look.",
        panels_,
        2,
        "validation NLL",
        methods=[name for name in order if name != SHRINKAGE],
        whole=False,
    )
    return found if drawn is None else [*found, drawn]


def _gains(records: Sequence[Record], order: Sequence[str]) -> dict[str, list[float]]:
    """Test NLL less the Gaussian's of the same seed, by method."""
    values = by_method(records, KEY)
    base = values.get(GAUSSIAN, {})
    found = {name: [own - base[seed] for seed, own in values.get(name, {}).items() if seed in base] for name in order}
    return {name: own for name, own in found.items() if own}


def draw_gains(gains: Mapping[str, Mapping[str, Sequence[float]]], order: Sequence[str], theme: Theme) -> Figure:
    """Gains of every seed, a panel for each place; methods are named at the left of every row of panels."""
    across = 5 if len(gains) > 6 else 4
    figure, axes = panels(len(gains), theme, height=0.8 + 0.24 * len(order), across=across)
    for axis, (title, own) in zip(axes, gains.items(), strict=True):
        axis.axvline(0, color=theme.muted, linewidth=1)
        for row, name in enumerate(order):
            if values := own.get(name):
                colour = theme.colour(name, OURS, order)
                axis.plot(values, [row] * len(values), "o", color=colour, markersize=5, alpha=0.7, markeredgewidth=0)
                axis.plot([float(np.median(values))], [row], "|", color=colour, markersize=14, markeredgewidth=2)
        axis.set(yticks=range(len(order)), ylim=(len(order) - 0.5, -0.5))
        axis.set_yticklabels(order if (place := axis.get_subplotspec()) and place.is_first_col() else [])
        axis.set_title(title, color=theme.ink, fontsize=10, loc="left")
    return figure
