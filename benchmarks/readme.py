"""Write the measured tables of the README, and the whole of them in the docs: `python -m benchmarks.readme`.

Every figure that has a target has a row in the docs, met or not; the README has a row for those that differ in their
setting alone, with the worst of them. Baselines and single seeds stand in the records. Other tables have the first
findings of the paper's experiments and of comparisons with peers that have records; `python -m benchmarks.findings`
writes all of them.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.documents import DOCS, Document
from benchmarks.findings import documents
from benchmarks.record import RESULTS, ROOT, read_records
from ot_lift.io import atomic_file
from ot_lift.report_words import names

README = ROOT / "README.md"
MEASUREMENTS = DOCS / "measurements.md"
BEGIN = "<!-- measured: begin (written by python -m benchmarks.readme) -->"
END = "<!-- measured: end -->"
_SENTENCES = 2  # of a finding


Record = Mapping[str, Any]

# What the records are about, by the first word of their names, in the order of the tables.
_SUBJECTS = {
    "Maps": ("wasserstein2", "gaussian", "finite_samples", "throughput", "large_files", "conjugation"),
    "Densities": ("density_quality", "log_determinant"),
    "Posteriors": ("posterior_maps", "amortized"),
    "The lift": ("lift_cost",),
}


@dataclass(frozen=True)
class _Measured:
    """A figure that has a target: of what, under which setting, and its record."""

    setting: str
    what: str
    figure: Record
    record: Record

    @property
    def badness(self) -> float:
        """Of several figures with the same target the one with the greatest is the worst."""
        return self.figure["value"] * (1 if self.figure["target"].startswith("≤") else -1)


def measured(records: Sequence[Record]) -> str:
    """The README's Markdown: a row for the figures that differ in their setting alone, by subject.

    Example:
        >>> print(measured([]))
        Nothing has been measured yet.
    """
    lines = []
    for subject, own in _by_subject(records).items():
        groups: dict[tuple[str, str], list[_Measured]] = {}
        for one in own:
            groups.setdefault((one.what, one.figure["target"]), []).append(one)
        lines += ["", f"| {subject} | worst | target | range |", "|---|---|---|---|"]
        lines += [_headline(what, target, group) for (what, target), group in groups.items()]
    if not lines:
        return "Nothing has been measured yet."
    return "\n".join([*lines[1:], "", _machines(records)])


def measurements(records: Sequence[Record]) -> str:
    """The docs' Markdown: a row a figure, by subject, then the machines."""
    lines = ["# Every figure that has a target", "", "Written by `python -m benchmarks.readme` from the records."]
    for subject, own in _by_subject(records).items():
        lines += [
            "",
            f"## {subject}",
            "",
            "| | measured | target | seeds or repeats | record |",
            "|---|---|---|---|---|",
        ]
        lines += [_row(one) for one in own]
    return "\n".join([*lines, "", _machines(records), ""])


def _by_subject(records: Sequence[Record]) -> dict[str, list[_Measured]]:
    by_number = sorted(records, key=lambda record: [int(digits) for digits in re.findall(r"\d+", record["name"])])
    stems = {record["name"]: record["name"].partition("-")[0] for record in records}
    known = {stem for own in _SUBJECTS.values() for stem in own}
    found = {}
    for subject, own in {**_SUBJECTS, "Others": sorted(set(stems.values()) - known)}.items():
        found[subject] = [
            one for stem in own for record in by_number if stems[record["name"]] == stem for one in _figures(record)
        ]
    return {subject: own for subject, own in found.items() if own}


def _shown(value: float, target: str) -> str:
    """Three digits, or one decimal more than the target has where they would hide how near to it the value is.

    Example:
        >>> _shown(0.51508, "≥ 0.5"), _shown(1.0034, "≤ 1.01"), _shown(1.0, "≤ 1.01")
        ('0.515', '1.003', '1')
    """
    text, decimals = f"{value:.3g}", len(target.partition(".")[2])
    enough = float(text) == value or "e" in text or len(text.partition(".")[2]) >= decimals
    return text if enough else f"{value:.{decimals + 1}f}"


def _range(values: Sequence[float], target: str) -> str:
    return f"{_shown(min(values), target)} to {_shown(max(values), target)}"


def _figures(record: Record) -> list[_Measured]:
    """Of those with a target; where a name says that its setting is the same, it is the last one's."""
    found, setting = [], ""
    for figure in record["figures"]:
        head, colon, what = figure["figure"].rpartition(": ")
        if head.strip() != "the same":
            setting = head if colon else what.partition(" (")[0]
        if figure["target"]:
            found.append(_Measured(setting if colon else "", what, figure, record))
    return found


def _headline(what: str, target: str, group: Sequence[_Measured]) -> str:
    worst = max(group, key=lambda one: one.badness).figure["value"]
    values = [one.figure["value"] for one in group]
    missed = sum(not one.figure["met"] for one in group)
    shown = _shown(worst, target)
    value = f"{shown} (missed by {missed} of {len(group)})" if missed else f"**{shown}**"
    spread = f"{_range(values, target)} ({len(values)} settings)" if len(values) > 1 else ""
    settings = _common([one.setting for one in group])
    return f"| {settings}{': ' if settings else ''}{what} | {value} | {target} | {spread} |"


def _common(settings: Sequence[str]) -> str:
    """What settings share, by their parts between commas; for the first part all that there are.

    Example:
        >>> _common(["pair, d = 2, from afar", "pair, d = 8, from afar"]), _common(["moons, d = 2", "spirals, d = 2"])
        ('pair, from afar', 'moons and spirals, d = 2')
    """
    parts = [one.split(", ") for one in settings]
    shared = [part for part in parts[0][1:] if all(part in one for one in parts)]
    return ", ".join([names(list(dict.fromkeys(first for first, *_ in parts))), *shared])


def said(found: Sequence[Document]) -> str:
    """The Markdown below it: for each document a table with what it says as a whole and its foremost findings.

    Example:
        >>> said([Document("maps", "Maps beside other methods", "", [], ["No peer is ahead."])]).splitlines()[-1]
        '| All of them | No peer is ahead. | [maps](docs/maps.md) |'
    """
    lines: list[str] = []
    for document in found:
        lines += ["", "", f"| {document.title} | | all of it |", "|---|---|---|"]
        if document.sentences:
            lines.append(f"| All of them | {' '.join(document.sentences)} | [{document.name}](docs/{document.file}) |")
        for one in document.findings:
            if one.foremost:
                link = f"[{one.name}](docs/{document.file}#{one.anchor})"
                lines.append(f"| {one.title} | {' '.join(one.page.sentences[:_SENTENCES])} | {link} |")
    return "\n".join(lines)


def _row(one: _Measured) -> str:
    figure, name = one.figure, one.record["name"]
    shown = _shown(figure["value"], figure["target"])
    value = f"**{shown}**" if figure["met"] else f"{shown} (missed)"
    spread = figure["spread"] or []
    ends = f"{_range(spread, figure['target'])} ({len(spread)})" if len(spread) > 1 else "1"
    what = f"{one.setting}: {one.what}" if one.setting else one.what
    return f"| {what} | {value} | {figure['target']} | {ends} | [{name}](../benchmarks/results/{name}.json) |"


def _machines(records: Sequence[Record]) -> str:
    return f"Measured on {'; on '.join(sorted({_machine(record['machine']) for record in records}))}."


def _machine(machine: Mapping[str, Any]) -> str:
    threads = f"{machine['threads']} thread" + ("s" if machine["threads"] > 1 else "")
    accelerator = f" and one {machine['accelerator']}" if "accelerator" in machine else ""
    versions = f"torch {machine['torch']}, POT {machine['pot']}, Python {machine['python']}"
    return f"{machine['cores']} cores ({machine['cpu']}){accelerator}, {threads}, {versions}"


def with_table(text: str, table: str) -> str:
    """A README's text with what stands between its markers replaced.

    Raises:
        ValueError: The markers are missing, or stand twice.

    Example:
        >>> with_table(f"before {BEGIN} old {END} after", "new").splitlines()[1:-1]
        ['new']
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"expected one line {BEGIN!r} and one line {END!r} in the README: put them back")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table}\n{END}{tail}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrite the README and the docs, or with `--check` say whether they are up to date; 0 where they are."""
    parser = argparse.ArgumentParser(description="Write the README's measured tables and the docs' from the records.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a table is out of date")
    parser.add_argument("--readme", type=Path, default=README, help="the file to write")
    parser.add_argument("--measurements", type=Path, default=MEASUREMENTS, help="the docs' file to write")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the records")
    options = parser.parse_args(arguments)
    records = read_records(directory=options.results)
    old = options.readme.read_text(encoding="utf-8")
    table = measured(records) + said(documents(options.results / "cells"))
    texts = {options.readme: with_table(old, table), options.measurements: measurements(records)}
    outdated = [path for path, text in texts.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if outdated and options.check:
        print(f"{names([path.name for path in outdated])}: out of date: python -m benchmarks.readme", file=sys.stderr)
        return 1
    for path in outdated:
        with atomic_file(path) as file:
            file.write(texts[path].encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
