"""Write the measured table of the README from the records: `python -m benchmarks.readme`.

The table has every figure that has a target, met or not; baselines and single seeds stand in the records. Others have
the first findings of the paper's experiments and of comparisons with peers that have records; `python -m
benchmarks.findings` writes all of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.findings import Document, documents
from benchmarks.record import RESULTS, ROOT, read_records

README = ROOT / "README.md"
BEGIN = "<!-- measured: begin (written by python -m benchmarks.readme) -->"
END = "<!-- measured: end -->"
_SENTENCES = 3  # of a finding


def measured(records: Sequence[Mapping[str, Any]]) -> str:
    """The Markdown between the markers: a row per figure with a target, then the machines.

    Example:
        >>> print(measured([]))
        Nothing has been measured yet.
    """
    rows = [_row(record, figure) for record in records for figure in record["figures"] if figure["target"]]
    if not rows:
        return "Nothing has been measured yet."
    header = ["| | measured | target | seeds or repeats | record |", "|---|---|---|---|---|"]
    machines = sorted({_machine(record["machine"]) for record in records})
    return "\n".join([*header, *rows, "", f"Measured on {'; on '.join(machines)}."])


def said(found: Sequence[Document]) -> str:
    """The Markdown below it: for each document with findings a table, a row a finding.

    Example:
        >>> said([Document("experiments", "What the experiments say", "", [])])
        ''
    """
    lines: list[str] = []
    for document in found:
        if not document.findings:
            continue
        lines += ["", "", f"| {document.title} | | all of it |", "|---|---|---|"]
        for one in document.findings:
            link = f"[{one.name}](docs/{document.file}#{_anchor(one.title)})"
            lines.append(f"| {one.title} | {' '.join(one.page.sentences[:_SENTENCES])} | {link} |")
    return "\n".join(lines)


def _anchor(heading: str) -> str:
    """As GitHub makes it.

    Example:
        >>> _anchor("Does it end well, in d = 8?")
        'does-it-end-well-in-d--8'
    """
    kept = (letter for letter in heading.lower() if letter.isalnum() or letter in " -_")
    return "".join(kept).replace(" ", "-")


def _row(record: Mapping[str, Any], figure: Mapping[str, Any]) -> str:
    value = f"**{figure['value']:.3g}**" if figure["met"] else f"{figure['value']:.3g} (missed)"
    spread = figure["spread"] or []
    ends = f"{min(spread):.3g} to {max(spread):.3g} ({len(spread)})" if len(spread) > 1 else "1"
    link = f"[{record['name']}](benchmarks/results/{record['name']}.json)"
    return f"| {figure['figure']} | {value} | {figure['target']} | {ends} | {link} |"


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
    """Rewrite the README, or with `--check` say whether it is up to date; 0 where it is."""
    parser = argparse.ArgumentParser(description="Write the README's measured table from the records.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if the table is out of date")
    parser.add_argument("--readme", type=Path, default=README, help="the file to write")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the records")
    options = parser.parse_args(arguments)
    old = options.readme.read_text(encoding="utf-8")
    table = measured(read_records(directory=options.results)) + said(documents(options.results / "cells"))
    new = with_table(old, table)
    if old == new:
        return 0
    if options.check:
        print("The README's measured table is out of date: python -m benchmarks.readme", file=sys.stderr)
        return 1
    options.readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
