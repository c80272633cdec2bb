"""A document of the docs: findings with their tables and pictures, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader

from benchmarks.experiments import Page
from benchmarks.record import ROOT
from ot_lift.report import squeezed, templates
from ot_lift.report_tables import Table
from ot_lift.report_theme import Picture

DOCS = ROOT / "docs"
_TEMPLATES = Path(__file__).parent / "templates"

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """An experiment, or tasks that methods are compared on, with records.

    Attributes:
        name: on the command line.
        title: a heading.
        words: what it is.
        cells: how many have a record.
        seeds: they have, in words.
        whole: whether all of its cells have one; of a task, those of methods with any and of ours.
        page: what they say.
        foremost: whether the README has a row for it.
    """

    name: str
    title: str
    words: str
    cells: int
    seeds: str
    whole: bool
    page: Page
    foremost: bool = True

    @property
    def anchor(self) -> str:
        """Of its heading, as GitHub makes it.

        Example:
            >>> Finding("x", "Does it end well, in d = 8?", "", 1, "", True, Page([], [], [], [])).anchor
            'does-it-end-well-in-d--8'
        """
        kept = (letter for letter in self.title.lower() if letter.isalnum() or letter in " -_")
        return "".join(kept).replace(" ", "-")


@dataclass(frozen=True)
class Document:
    """A file of the docs.

    Attributes:
        name: of the Markdown file, without its ending, and of the folder of its pictures beside it.
        title: its heading.
        words: what leads on from where it stems from.
        findings: what it holds.
        sentences: what its findings say together; with these the document begins, then a list of its findings.
        ranks: of methods over all tasks.
        surroundings: machines, versions and code that it was measured on and with, in lines.
    """

    name: str
    title: str
    words: str
    findings: Sequence[Finding]
    sentences: Sequence[str] = ()
    ranks: Table | None = None
    surroundings: Sequence[str] = ()

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
