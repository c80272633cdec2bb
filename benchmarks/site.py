"""A static site of a set of records: an overview and one page a task, whole in themselves, for file:// or a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, FileSystemLoader

from benchmarks.experiments import Page, find_experiment
from benchmarks.metrics import METRICS, by_method, kind_of
from benchmarks.site_plots import task_plots
from benchmarks.site_scaling import SLOPES, is_scaling, scaling_content
from benchmarks.site_tables import method_notes, overview_table, task_settings, task_table
from benchmarks.site_words import caption, surroundings, verdict
from ot_lift.io import atomic_file
from ot_lift.report import templates
from ot_lift.report_tables import Table

Record = Mapping[str, Any]

_TEMPLATES = Path(__file__).resolve().parent / "templates"
OVERVIEW = "index.html"
_SCALING = {"map": ("scaling", "How costs grow"), "density": ("density-scaling", "How costs of densities grow")}
_HEADINGS = {
    "map": "Maps: every method, every task",
    "density": "Densities: every method, every task",
    "posterior": "Posteriors: every method, every task",
}


def write_site(records: Sequence[Record], folder: Path) -> Path:
    """Write the site, the overview last: where it is, all pages are.

    Args:
        records: Of cells, sorted as they shall be shown (see `benchmarks.runner.read_cells`).
        folder: Created if need be; pages of an earlier site are replaced, other files are left alone.

    Returns:
        The overview's path.
    """
    tasks: dict[str, list[Record]] = {}
    experiments: dict[str, list[Record]] = {}
    for record in records:
        name = record["settings"]["task"].get("experiment")
        (experiments if name else tasks).setdefault(name or record["task"], []).append(record)
    package = templates()
    jinja = package.overlay(loader=ChoiceLoader([FileSystemLoader(_TEMPLATES), package.loader]))
    pages = {name: find_experiment(name).page(own) for name, own in experiments.items()}
    for name, own in experiments.items():
        content = _experiment_content(name, own, pages[name])
        _write(folder / _page(name), jinja.get_template("experiment.html.j2").render(content))
    sentences = {task: verdict(own) for task, own in tasks.items()}
    for task, own in tasks.items():
        content = _task_content(own, sentences[task])
        _write(folder / _page(task), jinja.get_template("task.html.j2").render(content))
    scaling = {task: own for task, own in tasks.items() if is_scaling(own)}
    others = {task: own for task, own in tasks.items() if task not in scaling}
    entries = [(_title(own), _page(task), sentences[task]) for task, own in others.items()]
    for kind, (page, title) in _SCALING.items():
        if sizes := {task: own for task, own in scaling.items() if kind_of(own) == kind}:
            content = _scaling_content(title, sizes)
            _write(folder / _page(page), jinja.get_template("scaling.html.j2").render(content))
            entries.append((title, _page(page), content["sentences"]))
    overview = {
        "title": "Methods compared",
        "entries": entries
        + [(find_experiment(name).title, _page(name), page.sentences) for name, page in pages.items()],
        "tables": _overview_tables(others),
        "surroundings": surroundings(records),
        "quick": _quick(records),
    }
    _write(folder / OVERVIEW, jinja.get_template("overview.html.j2").render(overview))
    return folder / OVERVIEW


def _overview_tables(tasks: Mapping[str, Sequence[Record]]) -> list[tuple[str, Table]]:
    """A heading and a table for each kind of tasks."""
    kinds: dict[str, dict[str, Sequence[Record]]] = {}
    for task, own in tasks.items():
        kinds.setdefault(kind_of(own), {})[task] = own
    return [(_HEADINGS[kind], overview_table(kinds[kind])) for kind in _HEADINGS if kind in kinds]


def _task_content(records: Sequence[Record], sentences: Sequence[str]) -> dict[str, Any]:
    return {
        "title": _title(records),
        "words": records[0]["settings"]["task"]["words"],
        "overview": OVERVIEW,
        "sentences": sentences,
        "caption": caption(records),
        "table": task_table(records),
        "metrics": [(metric.title, metric.note) for metric in METRICS if by_method(records, metric.key)],
        "plots": task_plots(records),
        "settings": task_settings(records),
        "notes": method_notes(records),
        "surroundings": surroundings(records),
        "quick": _quick(records),
    }


def _scaling_content(title: str, sizes: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
    records = [record for own in sizes.values() for record in own]
    return {
        "title": title,
        "words": records[0]["settings"]["task"]["words"],
        "overview": OVERVIEW,
        "pages": [(_title(own), _page(task)) for task, own in sizes.items()],
        "slopes": SLOPES,
        "surroundings": surroundings(records),
        "quick": _quick(records),
        **scaling_content(records),
    }


def _experiment_content(name: str, records: Sequence[Record], page: Page) -> dict[str, Any]:
    experiment = find_experiment(name)
    return {
        "title": experiment.title,
        "words": experiment.words,
        "overview": OVERVIEW,
        "sentences": page.sentences,
        "tables": page.tables,
        "metrics": page.metrics,
        "plots": page.plots,
        "settings": task_settings(records),
        "notes": method_notes(records),
        "surroundings": surroundings(records),
        "quick": _quick(records),
    }


def _title(records: Sequence[Record]) -> str:
    return str(records[0]["settings"]["task"]["title"])


def _page(task: str) -> str:
    return f"{task}.html"


def _quick(records: Sequence[Record]) -> bool:
    return any(record["settings"]["task"].get("quick") for record in records)


def _write(path: Path, text: str) -> None:
    with atomic_file(path) as file:
        file.write(text.encode())
