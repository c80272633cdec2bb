"""Write what the benchmarks' records say into the docs, with pictures: `python -m benchmarks.findings`.

One document has the paper's experiments, the others have the comparisons of maps, densities and posteriors with their
peers. Everything stems from the records of cells that are committed; a test compares the two.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.comparisons import comparisons
from benchmarks.documents import DOCS, Document, Finding, Record
from benchmarks.experiments import EXPERIMENTS, experiment_cells, find_experiment
from benchmarks.record import RESULTS
from benchmarks.runner import Plan, read_cells
from benchmarks.site_words import seeds_told, surroundings
from benchmarks.tasks import Options
from ot_lift.errors import DataError
from ot_lift.io import atomic_file


def documents(folder: Path, data: Path | None = None) -> list[Document]:
    """What a folder of cells says: the experiments, then maps, densities and posteriors, those with records.

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
    own = [one for one in records if "experiment" in one["settings"]["task"]]
    others = [one for one in records if "experiment" not in one["settings"]["task"]]
    claims = "[CLAIMS.md](../benchmarks/CLAIMS.md) holds the paper's claims against them, one by one."
    title, found = "What the paper's experiments say here", _experiments(own, folder)
    experiments = Document("experiments", title, claims, found, surroundings=surroundings(own))
    return [document for document in (experiments, *comparisons(others, folder, data)) if document.findings]


def _experiments(records: Sequence[Record], folder: Path) -> list[Finding]:
    own = {name: [one for one in records if one["settings"]["task"]["experiment"] == name] for name in EXPERIMENTS}
    found = []
    for name, there in own.items():
        if not there:
            continue
        experiment = find_experiment(name)
        plan = Plan.of(experiment_cells([name], Options(), seeds=None, threads=None)[0], folder)
        plan.check(name)
        judged = [one for one in there if one["seed"] in experiment.seeds]  # others chose settings
        whole, page = not plan.waiting, experiment.page(there)
        found.append(Finding(name, experiment.title, experiment.words, len(there), seeds_told(judged), whole, page))
    return found


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
