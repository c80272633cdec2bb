"""The docs say what the records of the paper's experiments say."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from benchmark_records import seeds_of

from benchmarks.findings import DOCS, Document, documents, main
from benchmarks.record import RESULTS
from ot_lift.errors import DataError

RECORDS = RESULTS / "cells"
METHODS = {"ot-lift": 1.0, "EMD": 5.0}


@pytest.fixture(scope="module")
def of_record() -> list[Document]:
    return documents(RECORDS)


@pytest.mark.parametrize("which", [0, 1])
def test_a_document_is_the_one_that_the_records_give(of_record: list[Document], which: int) -> None:
    found = of_record[which]
    assert found.text == (DOCS / found.file).read_text(encoding="utf-8"), "run: python -m benchmarks.findings"
    assert set(found.pictures) == {str(path.relative_to(DOCS)) for path in DOCS.glob(f"{found.name}/*.png")}


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
    experiments, comparisons = documents(tmp_path)
    (found,) = experiments.findings
    assert (found.name, found.whole, found.seeds) == ("escape", False, "seeds 0, 1 and 2")
    assert "more of its cells are not run yet" in experiments.text
    assert not comparisons.findings


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
    ours, peer = (seeds_of("elsewhere-d2", name, [scale, 1.1 * scale, 0.9 * scale]) for name, scale in METHODS.items())
    keep([*ours, *peer], tmp_path)
    experiments, comparisons = documents(tmp_path)
    (found,) = comparisons.findings
    assert not experiments.findings
    assert found.whole and found.page.sentences[0].startswith("ot-lift wins with L2-UVP 1.00%")
    assert "| **ot-lift** | **1**" in comparisons.text
    assert set(comparisons.pictures) == {"comparisons/elsewhere-d2-trade-off.png"}
    (tmp_path / "elsewhere-d2" / "EMD" / "2.json").unlink()
    assert "more of its cells are not run yet" in documents(tmp_path)[1].text


def test_a_comparison_of_other_settings_is_an_error(tmp_path: Path) -> None:
    keep(seeds_of("gaussian-d2", "linear", [1.0]), tmp_path)
    with pytest.raises(DataError, match="1 of gaussian-d2 with others"):
        documents(tmp_path)


def test_without_records_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert [document.findings for document in documents(tmp_path)] == [[], []]
