"""The page of `tabular`: who has the least test NLL on how many sets, and how well normalisers are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.experiments import Page
from benchmarks.experiments.energies import ADMMS
from benchmarks.experiments.likelihood_page import (
    GAUSSIAN,
    METRICS,
    ORDER,
    SHRINKAGE,
    by_place,
    of_protocol,
    plots,
    protocols_of,
    sentences,
    tables,
)
from benchmarks.experiments.pages import OURS, medians, order_of, part, settings_of
from ot_lift.report_tables import Cell, Column, Row, Table
from ot_lift.report_words import number

Record = Mapping[str, Any]

_CHAINS = tuple((OURS, name) for name in ("softplus", "projection", GAUSSIAN, SHRINKAGE, *ADMMS))
_EFFECTIVE = (
    "effective share",
    "Of the draws behind log Z of an energy, (Σw)²/(nΣw²). Where it is small, log Z is too low on average and the "
    "energy's NLL looks better than it is.",
)


def page(records: Sequence[Record]) -> Page:
    """Findings, tables and pictures.

    Args:
        records: Of `tabular`, any of them.
    """
    results = [record for record in records if record["settings"]["task"]["protocol"] != "tuning"]
    told = [
        f"{model.capitalize()}. {line}"
        for protocol in protocols_of(results)
        for model in settings_of(results, "model")
        for line in sentences(of_protocol(part(results, model=model), protocol), _CHAINS, "sets")
    ]
    shown = tables(results, "set and model")
    if known := _normalizers(part(results, model="energy")):
        shown.append(("Normalisers of the energies", "Median over seeds and protocols.", known))
    drawn = [
        plot
        for protocol in protocols_of(results)
        for plot in plots(results, protocol, curve_places=settings_of(results, "place"))
    ]
    return Page(told, shown, drawn, (*METRICS, _EFFECTIVE))


def _normalizers(records: Sequence[Record]) -> Table | None:
    order = [name for name in order_of(records, ORDER) if name in medians(records, "effective_share")]
    if not order:
        return None
    headings = [one for name in order for one in (Column(name, "± log Z"), Column(name, "effective share"))]
    rows = []
    for place, own in by_place(records).items():
        errors, shares = (medians(own, key) for key in ("log_normalizer_standard_error", "effective_share"))
        cells: list[Cell] = []
        for name in order:
            error, share = errors.get(name), shares.get(name)
            cells += Cell(number(error), error), Cell("–" if share is None else f"{100 * share:.1f}%", share)
        rows.append(Row(place, False, tuple(cells)))
    return Table((Column("set and model"), *headings), tuple(rows))
