"""The docs say what the records of the paper's experiments say."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from benchmark_records import seeds_of

from benchmarks.documents import DOCS, Document
from benchmarks.findings import documents, main
from benchmarks.readme import said
from benchmarks.record import RESULTS
from ot_lift.errors import DataError

RECORDS = RESULTS / "cells"
METHODS = {"ot-lift": 1.0, "ot-lift softplus": 4.0, "ot-lift projection": 3.0, "EMD": 5.0}


@pytest.fixture(scope="module")
def of_record() -> list[Document]:
    return documents(RECORDS)


def test_documents_are_those_that_the_records_give(of_record: list[Document]) -> None:
    assert [found.name for found in of_record][:2] == ["experiments", "maps"]
    for found in of_record:
        assert found.text == (DOCS / found.file).read_text(encoding="utf-8"), "run: python -m benchmarks.findings"
        assert set(found.pictures) == {str(path.relative_to(DOCS)) for path in DOCS.glob(f"{found.name}/*.png")}
    assert {path.name for path in DOCS.iterdir() if path.is_dir()} == {found.name for found in of_record}


def test_files_are_written_and_lead_to_each_other(tmp_path: Path) -> None:
    left = tmp_path / "docs" / "experiments" / "of-no-experiment.png"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"")
    shutil.copytree(RECORDS / "escape-shoulder", tmp_path / "records" / "escape-shoulder")
    main(["--records", str(tmp_path / "records"), "--docs", str(tmp_path / "docs")])
    text = (tmp_path / "docs" / "experiments.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((experiments/[^)]+)\)", text)
    assert links and all((tmp_path / "docs" / link).read_bytes().startswith(b"\x89PNG") for link in links)
    assert not left.exists()
    assert "more of its cells" not in text


def test_an_experiment_that_is_not_run_to_its_end_says_so(tmp_path: Path) -> None:
    shutil.copytree(RECORDS / "escape-shoulder" / "direct", tmp_path / "escape-shoulder" / "direct")
    (experiments,) = documents(tmp_path)
    (found,) = experiments.findings
    assert (found.name, found.whole, found.seeds) == ("escape", False, "seeds 0, 1 and 2")
    assert "more of its cells are not run yet" in experiments.text


def test_records_of_other_settings_are_no_findings(tmp_path: Path) -> None:
    shutil.copytree(RECORDS / "escape-shoulder", tmp_path / "escape-shoulder")
    path = next(tmp_path.glob("*/*/*.json"))
    record = json.loads(path.read_text()) | {"fingerprint": "0" * 64}
    path.write_text(json.dumps(record))
    with pytest.raises(DataError, match="1 of escape with others"):
        documents(tmp_path)


def keep(records: list[dict[str, Any]], folder: Path) -> None:
    for one in records:
        path = folder / one["task"] / one["method"] / f"{one['seed']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(one), encoding="utf-8")


def test_a_comparison_says_who_wins_and_what_is_missing(tmp_path: Path) -> None:
    for name, scale in METHODS.items():
        keep(seeds_of("elsewhere-d2", name, [scale, 1.1 * scale, 0.9 * scale]), tmp_path)
    (maps,) = documents(tmp_path)
    (found,) = maps.findings
    assert maps.name == "maps"
    assert found.whole and found.page.sentences[0].startswith("ot-lift wins with L2-UVP 1.00%")
    assert "| **ot-lift** | **1**" in maps.text
    assert set(maps.pictures) == {"maps/elsewhere-d2-trade-off.png"}
    (tmp_path / "elsewhere-d2" / "EMD" / "2.json").unlink()
    assert "more of its cells are not run yet" in documents(tmp_path)[0].text


def test_a_kind_of_tasks_begins_with_all_of_them_and_ends_with_what_they_cost(tmp_path: Path) -> None:
    names = {"near-d2": {"ot-lift": 1.0, "EMD": 5.0}, "far-d2": {"ot-lift": 9.0, "EMD": 2.0}}
    for task, methods in names.items():
        keep([one for name, value in methods.items() for one in seeds_of(task, name, [value])], tmp_path)
    sizes = [one for n in (10, 100) for one in seeds_of(f"scaling-n{n}-d2", "ot-lift", [1.0], fit_seconds=float(n))]
    for one in sizes:
        one["settings"]["task"] |= {"uncapped": True, "rows": int(one["task"].split("-")[1][1:]), "features": 2}
    keep(sizes, tmp_path)
    (maps,) = documents(tmp_path)
    assert [one.name for one in maps.findings] == ["far-d2", "near-d2", "scaling"]
    assert maps.sentences == [
        "Mean rank over 2 tasks: EMD 1.5 and ot-lift 1.5.",
        "On 1 of 2 no peer's mean is ahead of ot-lift's by what matters in use.",
        "Ahead of it: EMD on 1 (far-d2).",
        "With one seed nothing is known of the noise.",
    ]
    text = maps.text
    assert "| **ot-lift** | 1.5 | 1 of 2 | 1 of 2 |" in text
    assert "- [The task near-d2](#the-task-near-d2): ot-lift has the least L2-UVP 1.00%" in text
    assert "## How costs grow" in text and "maps/scaling-costs-rows-2.png" in text
    (row,) = [line for line in said([maps]).splitlines() if "docs/maps.md" in line]
    assert row.startswith("| All of them | Mean rank over 2 tasks: ")


def test_a_comparison_of_other_settings_is_an_error(tmp_path: Path) -> None:
    keep(seeds_of("gaussian-d2", "linear", [1.0]), tmp_path)
    with pytest.raises(DataError, match="1 of gaussian-d2 with others"):
        documents(tmp_path)


def test_without_records_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert documents(tmp_path) == []
