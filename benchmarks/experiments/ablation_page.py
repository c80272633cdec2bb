"""The page of `ablation`: end quality, covariance of slack and gradient, escape from the shoulder."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.experiments import Page
from benchmarks.experiments.densities1d import TARGETS
from benchmarks.experiments.pages import OURS, curves, failures, medians, order_of, part, seeds_cell, settings_of
from ot_lift.report_figures import Plot
from ot_lift.report_tables import Cell, Column, Row, Table
from ot_lift.report_words import names, number

Record = Mapping[str, Any]

_KEY = "total_variation"
_ORDER = (OURS, "constant code", "independent batch", "no slack", "direct + bias", "direct")
_PROTOCOLS = ("tuned", "paper")
_WHEN = ("at the start", "after a third", "at the end")
_METRICS = (
    ("total variation", "½∫|p − q| between the target and the fitted density on 8,000 points; 0 is the target itself."),
    (
        "covariance",
        "Frobenius norm of Cov(θ(X), ∂L(X)/∂b) over 64 fresh batches at a fixed iterate; θ is what softplus makes a "
        "weight of, b its slack. Below it, the level that it reaches when the gradients are dealt to other batches.",
    ),
    ("escaped", "Share of the weights that start at 0.0513 or less, on softplus' shoulder, and are above it now."),
)


def page(records: Sequence[Record]) -> Page:
    """Findings, tables and pictures.

    Args:
        records: Of `ablation`, any of them.
    """
    results = [record for record in records if record["settings"]["task"]["protocol"] != "tuning"]
    protocols = [name for name in _PROTOCOLS if part(results, protocol=name)]
    tables, plots = [], []
    for name in protocols:
        own = part(results, protocol=name)
        told = "Median over seeds, every seed below it. Bold: the least median."
        tables.append((f"End quality, {name}", told, _quality(own)))
        tables.append((f"Slack and gradient together, {name}", "Median over seeds, with its null.", _covariances(own)))
        plots += _plots(own, name)
    return Page(_sentences(results, protocols), tables, plots, _METRICS)


def _panels(records: Sequence[Record]) -> dict[str, list[Record]]:
    there = settings_of(records, "target")
    return {TARGETS[name].title: part(records, target=name) for name in TARGETS if name in there}


# -------------------------------------------------------------------------------------------- words
def _sentences(records: Sequence[Record], protocols: Sequence[str]) -> list[str]:
    told = []
    for protocol in protocols:
        for title, own in _panels(part(records, protocol=protocol)).items():
            middle = medians(own, _KEY)
            listed = [f"{name} {number(middle[name])}" for name in sorted(middle, key=middle.__getitem__)]
            if listed:
                told.append(f"{title}, {protocol}: median total variation {names(listed)}.")
    zero, rest = _zeros(records)
    if zero:
        told.append(f"The covariance of slack and gradient is exactly zero in every record of {names(zero)}.")
    if rest:
        told.append(f"It is not zero for {names(rest)}.")
    return told + failures(records)


def _zeros(records: Sequence[Record]) -> tuple[list[str], list[str]]:
    """Variants whose every covariance is exactly zero, and the others."""
    zero: list[str] = []
    rest: list[str] = []
    for name in order_of(records, _ORDER):
        own = [record for record in records if record["method"] == name]
        norms = [row["norm"] for record in own for row in record["details"].get("covariance", ())]
        if norms:
            (rest if any(norms) else zero).append(name)
    return zero, rest


# ------------------------------------------------------------------------------------------- tables
def _quality(records: Sequence[Record]) -> Table:
    own = _panels(records)
    rows = tuple(
        Row(name, name == OURS, tuple(seeds_cell(mine, name, _KEY) for mine in own.values()))
        for name in order_of(records, _ORDER)
    )
    return Table((Column("variant"), *(Column(title, "total variation") for title in own)), rows)


def _covariances(records: Sequence[Record]) -> Table:
    own = _panels(records)
    columns = tuple(Column(title, when) for title in own for when in _WHEN)
    rows = tuple(
        Row(name, name == OURS, tuple(_at(mine, name, place) for mine in own.values() for place in range(len(_WHEN))))
        for name in order_of(records, _ORDER)
    )
    return Table((Column("variant"), *columns), rows)


def _at(records: Sequence[Record], name: str, place: int) -> Cell:
    found = [
        record["details"].get("covariance", ())[place : place + 1] for record in records if record["method"] == name
    ]
    rows = [row for some in found for row in some]
    if not rows:
        return Cell("–")
    norm, null = (statistics.median(row[key] for row in rows) for key in ("norm", "null"))
    return Cell(number(norm), norm, small=f"null {number(null)}")


# ----------------------------------------------------------------------------------------- pictures
def _plots(records: Sequence[Record], protocol: str) -> list[Plot]:
    own, order = _panels(records), order_of(records, _ORDER)
    quality = curves(
        *(f"quality-{protocol}", f"Total variation over the steps, {protocol}", "Of what training would return then."),
        *(own, 2, "total variation"),
        methods=order,
        least=1e-3,
    )
    escape = curves(
        *(f"escaped-{protocol}", f"Escape from the shoulder, {protocol}", dict(_METRICS)["escaped"]),
        *(own, 1, "share escaped"),
        methods=order,
        source="escaped",
    )
    shoulder = curves(
        f"shoulder-{protocol}",
        f"On the shoulder, {protocol}",
        "Share of all constrained weights that are at most 0.0513.",
        *(own, 3, "share of constrained weights"),
        methods=order,
    )
    return [plot for plot in (quality, escape, shoulder) if plot is not None]
