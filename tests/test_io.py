"""A saved folder is whole, ours and of the right kind, or refused in one sentence; writes are atomic."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from ot_lift import io
from ot_lift.errors import DataError
from ot_lift.io import atomic_file, joined, load_folder, part, save_folder

FILES = ["config.json", "manifest.json", "tensors.safetensors"]


def tensors(fill: float = 1.0) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((3, 4), fill), "steps": torch.tensor(7)}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_folder(tmp_path / "map", kind="map", config={"step": 1}, tensors=tensors())
    return tmp_path / "map"


def refused(path: Path, word: str, kind: str = "map") -> None:
    """The folder is refused in one sentence that says what was expected, what was got and what to do."""
    with pytest.raises(DataError, match=word) as caught:
        load_folder(path, kind=kind)
    message = str(caught.value)
    assert message.startswith("expected ")
    assert ", got " in message
    assert ": " in message
    assert "\n" not in message


def left_over(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name.startswith("."))


def test_everything_comes_back_as_it_was_saved(tmp_path: Path, generator: torch.Generator) -> None:
    config = {
        "text": "φ ≥ 0",
        "none": None,
        "flag": True,
        "tiny": 5e-324,
        "tuple": (1, 2),
        "numpy": [np.float32(0.5), np.int64(3), np.bool_(True)],
        "nested": {"losses": [0.1, math.nan, math.inf, -math.inf]},
    }
    matrix = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    kept = {
        "matrix": matrix,
        "transposed": matrix.T,
        "view": matrix[1],
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0, 2),
        "flags": torch.tensor([True, False]),
        "state": generator.get_state(),
        "half": matrix.bfloat16(),
        "graph": torch.ones(2, requires_grad=True),
    }
    save_folder(tmp_path / "map", kind="map", config=config, tensors=kept)
    back, loaded = load_folder(str(tmp_path / "map") + os.sep, kind="map")
    losses = back.pop("nested")["losses"]
    assert losses[0] == 0.1
    assert math.isnan(losses[1])
    assert losses[2:] == [math.inf, -math.inf]
    expected = {key: value for key, value in config.items() if key != "nested"}
    assert back == expected | {"tuple": [1, 2], "numpy": [0.5, 3, True]}
    assert loaded.keys() == kept.keys()
    for name, tensor in kept.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor.detach())
    loaded["matrix"].zero_()  # nobody else's memory


def test_a_folder_holds_three_files_none_of_them_a_pickle_or_a_zip(saved: Path) -> None:
    assert sorted(entry.name for entry in saved.iterdir()) == FILES
    assert left_over(saved.parent) == []
    for name in FILES:
        assert (saved / name).read_bytes()[:2] not in (b"PK", b"\x80\x02", b"\x80\x04")
    for name in ("config.json", "manifest.json"):  # valid for any JSON reader
        json.loads((saved / name).read_text(), parse_constant=pytest.fail)
    assert set(safetensors.torch.load_file(saved / "tensors.safetensors")) == {"weight", "steps"}


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_files_get_the_permissions_of_any_new_file(saved: Path) -> None:
    reference = saved.parent / "reference"
    reference.write_text("x")
    for name in FILES:
        assert stat.S_IMODE((saved / name).stat().st_mode) == stat.S_IMODE(reference.stat().st_mode)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused(saved: Path, name: str) -> None:
    content = (saved / name).read_bytes()
    for length in range(0, len(content) - 1, 9):
        (saved / name).write_bytes(content[:length])
        refused(saved, "damaged or was copied incompletely")


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_anywhere_is_refused(saved: Path, name: str) -> None:
    content = (saved / name).read_bytes()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1
        (saved / name).write_bytes(damaged)
        with pytest.raises(DataError):
            load_folder(saved, kind="map")
    (saved / name).write_bytes(content)
    load_folder(saved, kind="map")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(saved: Path, name: str) -> None:
    (saved / name).unlink()
    refused(saved, "without manifest.json" if name == "manifest.json" else f"no readable {name}")


def test_files_of_two_saves_do_not_mix(saved: Path) -> None:
    other = saved.parent / "other"
    save_folder(other, kind="map", config={"step": 2}, tensors=tensors())
    shutil.copy(other / "config.json", saved / "config.json")
    refused(saved, r"config\.json that differs from its checksum")


def rewrite_manifest(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text()) | changes
    manifest["seal"] = io._seal(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_newer_format_is_named_even_where_the_rest_is_unknown(saved: Path) -> None:
    rewrite_manifest(saved, version=io.FORMAT_VERSION + 1, files={"weights.bin": {}})
    refused(saved, "version 1 or older at .*, got 2.*upgrade")


def test_another_kind_is_refused(saved: Path) -> None:
    refused(saved, "expected a saved checkpoint at .*, got a saved map", kind="checkpoint")


@pytest.mark.parametrize("content", ['{"format": "other"}', "[1]", "null", '"ot-lift"', '{"a": '])
def test_a_foreign_manifest_is_refused(saved: Path, content: str) -> None:
    (saved / "manifest.json").write_text(content)
    refused(saved, "expected a (whole )?folder saved by ot-lift")


def test_a_foreign_folder_a_file_and_nothing_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "absent", "got nothing there")
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file", "got a file there")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", r"without manifest\.json")


def test_a_save_replaces_an_earlier_one_or_an_empty_folder(saved: Path) -> None:
    save_folder(saved, kind="map", config={"step": 2}, tensors=tensors(2.0))
    config, loaded = load_folder(saved, kind="map")
    assert config == {"step": 2}
    assert loaded["weight"].unique().item() == 2.0
    (saved.parent / "empty").mkdir()
    save_folder(saved.parent / "empty", kind="map", config={}, tensors={})
    assert load_folder(saved.parent / "empty", kind="map") == ({}, {})
    save_folder(saved.parent / "a" / "b" / "map", kind="map", config={}, tensors={})
    assert left_over(saved.parent) == []


@pytest.mark.parametrize("contents", [["notes.txt"], ["config.json"], ["manifest.json"]])
def test_a_save_never_replaces_what_is_not_ours(tmp_path: Path, contents: list[str]) -> None:
    for name in contents:
        (tmp_path / name).write_text("{}")
    with pytest.raises(DataError, match=r"empty folder or an earlier save .*choose another path"):
        save_folder(tmp_path, kind="map", config={}, tensors={})
    assert sorted(entry.name for entry in tmp_path.iterdir()) == contents


def test_a_save_keeps_a_file_that_was_added_to_an_earlier_one(saved: Path) -> None:
    (saved / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"other files \(notes\.txt\)"):
        save_folder(saved, kind="map", config={}, tensors={})
    assert (saved / "notes.txt").read_text() == "mine"


def test_an_unwritable_target_gives_one_sentence(saved: Path) -> None:
    blocked = saved / "config.json"
    with pytest.raises(DataError, match="got a file"):
        save_folder(blocked, kind="map", config={}, tensors={})
    for write in (
        lambda: save_folder(blocked / "map", kind="map", config={}, tensors={}),
        lambda: atomic_file(blocked / "x.csv").__enter__(),
        lambda: atomic_file(saved).__enter__(),
    ):
        with pytest.raises(DataError, match=r"expected to be able to write .* choose another path"):
            write()


def test_what_json_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="JSON"):
        save_folder(tmp_path / "map", kind="map", config={"sampler": print}, tensors={})
    assert list(tmp_path.iterdir()) == []


class Stop(BaseException):
    """Stands for Ctrl-C, a full disk or anything else that ends a save."""


@pytest.mark.parametrize("call", ["_flush", "_flush_folder", "_swap_in"])
@pytest.mark.parametrize("error", [Stop(), OSError(28, "No space left on device")], ids=["stop", "full"])
def test_an_interrupted_save_leaves_the_earlier_folder_intact(
    saved: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException
) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(io, call, fail)
    with pytest.raises((Stop, DataError), match=None if isinstance(error, Stop) else "No space left"):
        save_folder(saved, kind="map", config={"step": 2}, tensors=tensors(2.0))
    assert load_folder(saved, kind="map")[0] == {"step": 1}
    assert left_over(saved.parent) == []


def test_a_failed_rename_puts_the_earlier_folder_back(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def fail_on_the_new(source: Any, target: Any) -> None:
        if str(source).endswith(".partial"):
            raise Stop
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail_on_the_new)
    with pytest.raises(Stop):
        save_folder(saved, kind="map", config={"step": 2}, tensors=tensors(2.0))
    assert load_folder(saved, kind="map")[0] == {"step": 1}
    assert left_over(saved.parent) == []


def test_a_save_killed_between_its_renames_is_read_and_finished(saved: Path) -> None:
    saved.rename(saved.parent / ".map.replaced")  # what a SIGKILL there leaves
    assert load_folder(saved, kind="map")[0] == {"step": 1}
    stale, fresh = (saved.parent / f".map.{name}.partial" for name in ("old", "new"))
    stale.mkdir()
    fresh.mkdir()
    os.utime(stale, (time.time() - 7200,) * 2)
    save_folder(saved, kind="map", config={"step": 2}, tensors=tensors())
    assert load_folder(saved, kind="map")[0] == {"step": 2}
    assert left_over(saved.parent) == [fresh.name]  # another process may still be writing it


_SAVE_FOREVER = """
import itertools, sys, torch
from ot_lift.io import save_folder
for step in itertools.count():
    weight = torch.full((50_000,), float(step))
    save_folder(sys.argv[1], kind="map", config={"step": step}, tensors={"w": weight})
    print(step, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX signals")
def test_a_process_killed_while_saving_leaves_a_whole_folder(tmp_path: Path, rng: np.random.Generator) -> None:
    path, last = tmp_path / "map", -1
    for _ in range(2):
        command = [sys.executable, "-c", _SAVE_FOREVER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(3):
                last = int(process.stdout.readline())
            time.sleep(float(rng.uniform(0, 0.02)))
            process.kill()
            process.stdout.read()
        config, loaded = load_folder(path, kind="map")
        assert config["step"] >= last
        assert loaded["w"].unique().tolist() == [config["step"]]


def test_an_atomic_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.bin"
    with atomic_file(path) as file:
        file.write(b"first")
        assert not path.exists()
    assert path.read_bytes() == b"first"
    with pytest.raises(Stop), atomic_file(path) as file:
        file.write(b"sec")
        raise Stop
    assert path.read_bytes() == b"first"
    assert os.listdir(path.parent) == ["x.bin"]


def test_parts_come_back_from_what_they_were_joined_to() -> None:
    parts = {"a": {"x": torch.ones(1)}, "a.1": {"x": torch.ones(2)}, "a.10": {"y.z": torch.ones(3)}}
    whole = joined(parts)
    assert part(whole, "a.1").keys() == {"x"} and part(whole, "a.10").keys() == {"y.z"} and part(whole, "b") == {}
