"""What the records say of tasks that methods are compared on: a document for maps, densities and posteriors each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.documents import Document, Finding
from benchmarks.experiments import Page
from benchmarks.kinds import offers
from benchmarks.methods import OURS
from benchmarks.metrics import METRICS, by_method, kind_of
from benchmarks.runner import Plan
from benchmarks.site_plots import task_plots
from benchmarks.site_scaling import SLOPES, is_scaling, scaling_content
from benchmarks.site_tables import ranks_table, task_table
from benchmarks.site_words import caption, overall, seeds_told, surroundings, verdict
from benchmarks.tasks import Options, default_seeds

Record = Mapping[str, Any]
Tasks = Mapping[str, Sequence[Record]]

_TITLES = {
    "map": ("maps", "Maps beside other methods"),
    "density": ("densities", "Densities beside other methods"),
    "posterior": ("posteriors", "Posteriors beside other methods"),
}
_SCALING = {"map": ("scaling", "How costs grow"), "density": ("density-scaling", "How costs grow")}
_WORDS = "Where a peer wins it says so; what all methods had in common, and the machines, stand at the end."


def comparisons(records: Sequence[Record], folder: Path, data: Path | None) -> list[Document]:
    """A document for each kind of tasks; without findings where there are no records.

    Args:
        records: Of tasks, sorted as they shall be shown.
        folder: They were read from.
        data: Folder of data that are no part of the project: with it, records that need it are held to the code too.

    Raises:
        DataError: Records are of other settings than the code's.
    """
    tasks: dict[str, list[Record]] = {}
    for record in records:
        tasks.setdefault(record["task"], []).append(record)
    variants = _variants(tasks, folder, data) if tasks else {}
    whole = {task: _whole(own, variants.get(_sort(own[0]["settings"]["task"]), set())) for task, own in tasks.items()}
    return [
        _document(kind, {task: own for task, own in tasks.items() if kind_of(own) == kind}, whole) for kind in _TITLES
    ]


def _document(kind: str, tasks: Tasks, whole: Mapping[str, bool]) -> Document:
    name, title = _TITLES[kind]
    sizes = {task: own for task, own in tasks.items() if is_scaling(own)}
    others = {task: own for task, own in tasks.items() if task not in sizes}
    findings = [_task(task, own, whole[task]) for task, own in others.items()]
    if sizes:
        findings.append(_scaling(*_SCALING[kind], sizes, all(whole[task] for task in sizes)))
    sentences, ranks = (overall(others), ranks_table(others)) if others else ((), None)
    records = [record for own in tasks.values() for record in own]
    return Document(name, title, _WORDS, findings, sentences, ranks, surroundings(records))


def _variants(tasks: Tasks, folder: Path, data: Path | None) -> dict[tuple[Any, ...], set[str]]:
    """Our variants by sort of task; on the way all records are held to the code's settings."""
    found: dict[tuple[Any, ...], set[str]] = {}
    for offer in offers(Options(data))[0]:
        settings = offer.task.settings()
        ours = {method.name for method in offer.methods if method.name.startswith(OURS)}
        found.setdefault(_sort(settings), set()).update(ours)
        if own := tasks.get(offer.task.name):
            threads = {(record["method"], record["seed"]): record["settings"]["threads"] for record in own}
            Plan.of(
                [
                    offer.kind.cell(offer.task, method, seed, threads[name, seed])
                    for method in offer.methods
                    for name, seed in threads
                    if name == method.name
                ],
                folder,
            ).check(offer.task.name)
    return found


def _sort(settings: Mapping[str, Any]) -> tuple[Any, ...]:
    """What decides which variants of ours are compared on a task: its kind, or itself where cost is the question."""
    return settings.get("kind"), settings["name"] if settings.get("uncapped") else None


def _whole(own: Sequence[Record], variants: set[str]) -> bool:
    """Whether every seed is there of each method that has any record, and of each variant of ours.

    Which peers are installed decides nothing: the document is the same everywhere.
    """
    methods = {one["method"] for one in own} | variants
    wanted = product(methods, default_seeds(own[0]["settings"]["task"]))
    return {(one["method"], one["seed"]) for one in own} >= set(wanted)


def _task(task: str, own: Sequence[Record], whole: bool) -> Finding:
    settings = own[0]["settings"]["task"]
    metrics = [(metric.title, metric.note) for metric in METRICS if by_method(own, metric.key)]
    return Finding(
        *(task, settings["title"], settings["words"], len(own), seeds_told(own), whole),
        page=Page(verdict(own), [("Every method", caption(own), task_table(own))], task_plots(own), metrics),
        foremost=bool(settings.get("spend_budget")),
    )


def _scaling(name: str, title: str, sizes: Tasks, whole: bool) -> Finding:
    records = [record for own in sizes.values() for record in own]
    words = records[0]["settings"]["task"]["words"]
    content = scaling_content(records)
    sections = content["sections"]
    tables = [(section["title"], SLOPES, section["table"]) for section in sections]
    page = Page(content["sentences"], tables, [section["plot"] for section in sections], [])
    return Finding(name, title, words, len(records), seeds_told(records), whole, page, foremost=False)
