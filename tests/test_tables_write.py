"""Tables are written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ot_lift import tables_write
from ot_lift.errors import DataError
from ot_lift.tables import open_table
from ot_lift.tables_write import write_table

FORMATS = sorted(tables_write._SINKS)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("earlier", [False, True])
def test_a_failed_write_leaves_what_was_there(suffix: str, earlier: bool, tmp_path: Path) -> None:
    path = tmp_path / f"y{suffix}"
    if earlier:
        write_table(path, np.eye(3))

    def broken() -> Iterator[np.ndarray]:
        yield np.zeros((5, 2))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_table(path, broken())
    for chunks, word in (
        ([np.zeros((5, 2)), np.zeros((5, 3))], r"\(n, 2\), got \(5, 3\)"),
        ([np.zeros(3)], "Reshape your data"),
        ([np.array([["a"]])], "strings"),
        ([], "at least one chunk"),
    ):
        with pytest.raises(DataError, match=word):
            write_table(path, chunks)
    with pytest.raises(DataError, match=r"\(n, 1\), got \(2, 2\)"):
        write_table(path, np.eye(2), columns=["a"])
    assert [entry.name for entry in tmp_path.iterdir()] == ([path.name] if earlier else [])
    if earlier:
        assert np.array_equal(open_table(path).array(), np.eye(3))


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_unwritable_place_gives_one_sentence(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="expected to be able to write"):
        write_table(tmp_path / "file" / f"y{suffix}", np.eye(2))


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_full_disk_gives_one_sentence(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables_write._SINKS[suffix], "append", full)
    with pytest.raises(DataError, match="No space left on device"):
        write_table(tmp_path / f"y{suffix}", np.eye(2))
    assert list(tmp_path.iterdir()) == []
