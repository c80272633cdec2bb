"""The docs say what the records of the paper's experiments say."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from benchmarks.findings import DOCS, DOCUMENT, document, findings, main, pictures
from benchmarks.record import RESULTS
from ot_lift.errors import DataError

RECORDS = RESULTS / "cells"


def test_the_document_is_the_one_that_the_records_give() -> None:
    found = findings(RECORDS)
    assert document(found) == (DOCS / DOCUMENT).read_text(encoding="utf-8"), "run: python -m benchmarks.findings"
    assert set(pictures(found)) == {str(path.relative_to(DOCS)) for path in DOCS.glob("experiments/*.png")}


def test_files_are_written_and_lead_to_each_other(tmp_path: Path) -> None:
    left = tmp_path / "docs" / "experiments" / "of-no-experiment.png"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"")
    shutil.copytree(RECORDS / "escape-shoulder", tmp_path / "records" / "escape-shoulder")
    main(["--records", str(tmp_path / "records"), "--docs", str(tmp_path / "docs")])
    text = (tmp_path / "docs" / DOCUMENT).read_text(encoding="utf-8")
    links = re.findall(r"\]\((experiments/[^)]+)\)", text)
    assert links and all((tmp_path / "docs" / link).read_bytes().startswith(b"\x89PNG") for link in links)
    assert not left.exists()
    assert "more of its cells" not in text


def test_an_experiment_that_is_not_run_to_its_end_says_so(tmp_path: Path) -> None:
    shutil.copytree(RECORDS / "escape-shoulder" / "direct", tmp_path / "escape-shoulder" / "direct")
    (found,) = findings(tmp_path)
    assert (found.name, found.whole, found.seeds) == ("escape", False, "0, 1 and 2")
    assert "more of its cells are not run yet" in document([found])


def test_records_of_other_settings_are_no_findings(tmp_path: Path) -> None:
    shutil.copytree(RECORDS / "escape-shoulder", tmp_path / "escape-shoulder")
    path = next(tmp_path.glob("*/*/*.json"))
    record = json.loads(path.read_text()) | {"fingerprint": "0" * 64}
    path.write_text(json.dumps(record))
    with pytest.raises(DataError, match="1 of escape with others"):
        findings(tmp_path)


def test_without_records_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert findings(tmp_path) == []
