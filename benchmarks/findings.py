"""Write what the paper's experiments say into the docs, with pictures: `python -m benchmarks.findings`.

Everything stems from the records of their cells that are committed; a test compares the two.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader

from benchmarks.experiments import EXPERIMENTS, Page, experiment_cells, find_experiment
from benchmarks.record import RESULTS, ROOT
from benchmarks.runner import Plan, read_cells
from benchmarks.tasks import Options
from ot_lift.errors import DataError
from ot_lift.io import atomic_file
from ot_lift.report import squeezed, templates
from ot_lift.report_words import names

DOCS = ROOT / "docs"
DOCUMENT = "experiments.md"
_PICTURES = "experiments"
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Finding:
    """An experiment with records.

    Attributes:
        name: on the command line.
        title: a heading.
        words: what it is.
        cells: how many have a record.
        seeds: they have, in words.
        whole: whether all of its cells have one.
        page: what they say.
    """

    name: str
    title: str
    words: str
    cells: int
    seeds: str
    whole: bool
    page: Page


def findings(records: Path) -> list[Finding]:
    """Every experiment with records in a folder.

    Args:
        records: Folder of cells.

    Raises:
        DataError: Records are of other settings than the code's.
    """
    try:
        found = read_cells(records)
    except DataError:
        return []
    own = {name: [one for one in found if one["settings"]["task"].get("experiment") == name] for name in EXPERIMENTS}
    return [_finding(name, there, records) for name, there in own.items() if there]


def _finding(name: str, own: Sequence[Mapping[str, Any]], records: Path) -> Finding:
    experiment = find_experiment(name)
    cells, _ = experiment_cells([name], Options(), seeds=None, threads=None)
    plan = Plan.of(cells, records)
    if plan.outdated:
        raise DataError(
            f"expected records of the code's settings, got {plan.outdated} of {name} with others: "
            f"run `python -m benchmarks run {name}`"
        )
    seeds = [str(seed) for seed in experiment.seeds if seed in {one["seed"] for one in own}]
    return Finding(
        *(name, experiment.title, experiment.words, len(own), names(seeds)),
        whole=not plan.waiting,
        page=experiment.page(own),
    )


def document(found: Sequence[Finding]) -> str:
    """The Markdown, with links to pictures beside it."""
    environment = templates().overlay(loader=FileSystemLoader(_TEMPLATES))
    return squeezed(environment.get_template("findings.md.j2").render(experiments=found))


def pictures(found: Sequence[Finding]) -> dict[str, bytes]:
    """PNG files by the names that the document has for them."""
    return {f"{_PICTURES}/{one.name}-{plot.key}.png": plot.picture.light for one in found for plot in one.page.plots}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the document and its pictures; pictures that no experiment has any more are removed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=Path, default=RESULTS / "cells", help="the folder of the records")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder to write to")
    options = parser.parse_args(arguments)
    found = findings(options.records)
    files = {DOCUMENT: document(found).encode(), **pictures(found)}
    for name, content in files.items():
        with atomic_file(options.docs / name) as file:
            file.write(content)
    for path in (options.docs / _PICTURES).glob("*.png"):
        if f"{_PICTURES}/{path.name}" not in files:
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
