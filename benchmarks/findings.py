"""Write what the benchmarks' records say into the docs, with pictures: `python -m benchmarks.findings`.

One document has the paper's experiments, another the comparisons of maps, densities and posteriors with their peers.
Everything stems from the records of cells that are committed; a test compares the two.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader

from benchmarks.cells import BaseCell
from benchmarks.experiments import EXPERIMENTS, Page, experiment_cells, find_experiment
from benchmarks.kinds import offers
from benchmarks.methods import OURS
from benchmarks.metrics import METRICS, by_method
from benchmarks.record import RESULTS, ROOT
from benchmarks.runner import Plan, read_cells
from benchmarks.site_plots import task_plots
from benchmarks.site_tables import task_table
from benchmarks.site_words import verdict
from benchmarks.tasks import Options, default_seeds
from ot_lift.errors import DataError
from ot_lift.io import atomic_file
from ot_lift.report import squeezed, templates
from ot_lift.report_theme import Picture
from ot_lift.report_words import names

DOCS = ROOT / "docs"
_TEMPLATES = Path(__file__).parent / "templates"

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """An experiment, or a task that methods are compared on, with records.

    Attributes:
        name: on the command line.
        title: a heading.
        words: what it is.
        cells: how many have a record.
        seeds: they have, in words.
        whole: whether all of its cells have one; of a task, those of methods with any and of ours.
        page: what they say.
    """

    name: str
    title: str
    words: str
    cells: int
    seeds: str
    whole: bool
    page: Page


@dataclass(frozen=True)
class Document:
    """A file of the docs.

    Attributes:
        name: of the Markdown file, without its ending, and of the folder of its pictures beside it.
        title: its heading.
        words: what leads on from where it stems from.
        findings: what it holds.
    """

    name: str
    title: str
    words: str
    findings: Sequence[Finding]

    @property
    def file(self) -> str:
        """The Markdown file."""
        return f"{self.name}.md"

    @property
    def text(self) -> str:
        """The Markdown, with links to pictures beside it."""
        environment = templates().overlay(loader=FileSystemLoader(_TEMPLATES))
        return squeezed(environment.get_template("findings.md.j2").render(document=self))

    @property
    def pictures(self) -> dict[str, Picture]:
        """By the names that the text has for them."""
        found = [(one, plot) for one in self.findings for plot in one.page.plots]
        return {f"{self.name}/{one.name}-{plot.key}.png": plot.picture for one, plot in found}


def documents(folder: Path, data: Path | None = None) -> list[Document]:
    """What a folder of cells says: the experiments, then the comparisons.

    Args:
        folder: Of records.
        data: Folder of data that are no part of the project: with it, records that need it are held to the code too.

    Raises:
        DataError: Records are of other settings than the code's.
    """
    try:
        records = read_cells(folder)
    except DataError:
        records = []
    claims = "[CLAIMS.md](../benchmarks/CLAIMS.md) holds the paper's claims against them, one by one."
    peers = "Every method has the same data, the same budget and the same threads; where a peer wins it says so."
    return [
        Document("experiments", "What the paper's experiments say here", claims, _experiments(records, folder)),
        Document("comparisons", "Beside other methods", peers, _comparisons(records, folder, data)),
    ]


def _experiments(records: Sequence[Record], folder: Path) -> list[Finding]:
    own = {name: [one for one in records if one["settings"]["task"].get("experiment") == name] for name in EXPERIMENTS}
    found = []
    for name, there in own.items():
        if not there:
            continue
        experiment = find_experiment(name)
        whole = _check(name, experiment_cells([name], Options(), seeds=None, threads=None)[0], folder)
        seeds = [str(seed) for seed in experiment.seeds if seed in {one["seed"] for one in there}]
        page = experiment.page(there)
        found.append(Finding(name, experiment.title, experiment.words, len(there), _seeds(seeds), whole, page))
    return found


def _comparisons(records: Sequence[Record], folder: Path, data: Path | None) -> list[Finding]:
    tasks: dict[str, list[Record]] = {}
    for record in records:
        if "experiment" not in record["settings"]["task"]:
            tasks.setdefault(record["task"], []).append(record)
    if not tasks:
        return []
    variants: dict[tuple[Any, ...], set[str]] = {}
    for offer in offers(Options(data))[0]:
        ours = {method.name for method in offer.methods if method.name.startswith(OURS)}
        variants.setdefault(_sort(offer.task.settings()), set()).update(ours)
        if own := tasks.get(offer.task.name):
            there = {(record["method"], record["seed"]): record["settings"]["threads"] for record in own}
            made = [
                offer.kind.cell(offer.task, method, seed, threads)
                for method in offer.methods
                for (name, seed), threads in there.items()
                if name == method.name
            ]
            _check(offer.task.name, made, folder)
    found = []
    for task, own in tasks.items():
        settings = own[0]["settings"]["task"]
        found.append(_comparison(task, own, variants.get(_sort(settings), set())))
    return found


def _sort(settings: Mapping[str, Any]) -> tuple[Any, ...]:
    """What decides which variants of ours are compared on a task: its kind, and whether its cost is the question."""
    return settings.get("kind"), settings.get("uncapped")


def _comparison(task: str, own: Sequence[Record], variants: set[str]) -> Finding:
    """Whole with every seed of each method that has any record, and of each variant of ours.

    Which peers are installed decides nothing: the document is the same everywhere.
    """
    settings = own[0]["settings"]["task"]
    told = "Mean and standard deviation over seeds, on points that no fit saw. Bold: not beaten beyond noise."
    metrics = [(metric.title, metric.note) for metric in METRICS if by_method(own, metric.key)]
    seeds = sorted({one["seed"] for one in own})
    methods = {one["method"] for one in own} | variants
    return Finding(
        *(task, settings["title"], settings["words"], len(own), _seeds([str(seed) for seed in seeds])),
        whole={(one["method"], one["seed"]) for one in own} >= set(product(methods, default_seeds(settings))),
        page=Page(verdict(own), [("Every method", told, task_table(own))], task_plots(own), metrics),
    )


def _seeds(numbers: Sequence[str]) -> str:
    return f"seed{'s' * (len(numbers) > 1)} {names(numbers)}"


def _check(name: str, cells: Iterable[BaseCell], folder: Path) -> bool:
    """Whether all cells have a record; one of other settings is an error."""
    plan = Plan.of(cells, folder)
    if plan.outdated:
        raise DataError(
            f"expected records of the code's settings, got {plan.outdated} of {name} with others: "
            f"run `python -m benchmarks run {name}`"
        )
    return not plan.waiting


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the documents and their pictures; pictures that nothing has any more are removed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=Path, default=RESULTS / "cells", help="the folder of the records")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder to write to")
    parser.add_argument("--data", type=Path, help="the folder of data, to hold records that need it to the code")
    options = parser.parse_args(arguments)
    for document in documents(options.records, options.data):
        pictures = document.pictures
        files = {document.file: document.text.encode()} | {name: one.light for name, one in pictures.items()}
        for name, content in files.items():
            with atomic_file(options.docs / name) as file:
                file.write(content)
        for path in (options.docs / document.name).glob("*.png"):
            if f"{document.name}/{path.name}" not in pictures:
                path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
