"""The command line: every command on every format, one sentence and exit code 2 for bad input, JSON that parses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from ot_lift.brenier import BrenierMap
from ot_lift.cli import app
from ot_lift.compare import compare
from ot_lift.errors import ConvergenceError, DataError, ExtrapolationWarning
from ot_lift.objectives import SemiDual
from ot_lift.tables import open_table
from ot_lift.tables_write import write_table
from ot_lift.training import TrainingOptions

Array = np.ndarray[Any, np.dtype[Any]]

FORMATS = ("csv", "parquet", "npy", "npz")
FAST = ["--max-steps", "5"]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def summary(result: Result) -> dict[str, Any]:
    """The JSON object on standard output, after a run that went well."""
    assert result.exit_code == 0, result.stderr
    return dict(json.loads(result.stdout, parse_constant=pytest.fail))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source and a target in every format, and a map fitted on them."""
    folder = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 2)), 3 + 2 * rng.normal(size=(260, 2))
    for suffix in FORMATS:
        write_table(folder / f"source.{suffix}", [x], columns=["a", "b"])
        write_table(folder / f"target.{suffix}", [y], columns=["a", "b"])
    result = run("fit", folder / "source.csv", folder / "target.csv", "--out", folder / "map", *FAST, "--json")
    (folder / "fit.json").write_text(result.stdout)
    return folder


@pytest.fixture
def in_process() -> Iterator[None]:
    """Comparisons without a fresh process for every method, which takes seconds to start."""
    with mock.patch("ot_lift.compare.compare", partial(compare, isolated=False)):
        yield


# -------------------------------------------------------------------------------------------- help
def test_help_names_every_command_and_what_to_type_first() -> None:
    text = run("--help").stdout
    for command in ("fit", "transport", "invert", "compare", "demo"):
        assert f"ot-lift {command}" in text
    assert run().exit_code == 2  # nothing asked for: the same help, and not success
    assert "Start with the demo" in run().stdout


@pytest.mark.parametrize("command", ["fit", "transport", "invert", "compare", "demo"])
def test_help_of_a_command_has_an_example_that_names_it(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"$ ot-lift {command} " in result.stdout
    assert "--json" in result.stdout


def test_the_version_is_told() -> None:
    assert run("--version").stdout.startswith("ot-lift ")


# --------------------------------------------------------------------------------------------- fit
def test_fit_tells_the_certificate_as_json_and_as_text(place: Path, tmp_path: Path) -> None:
    found = json.loads((place / "fit.json").read_text())
    assert found["command"] == "fit" and found["features"] == 2 and found["steps"] == 5
    assert found["stop_reason"] == "max_steps"
    assert found["certificate"]["w2_squared_lower"] < found["certificate"]["w2_squared_upper"]
    assert not (place / "map.checkpoints").exists()
    result = run("fit", place / "source.npy", place / "target.npz", "--out", tmp_path / "map", *FAST)
    assert result.exit_code == 0
    assert "W2², 95% lower limit" in result.stdout
    assert f"ot-lift transport {tmp_path / 'map'}" in result.stdout


def test_fit_is_what_the_library_fits_whatever_the_format(place: Path, tmp_path: Path) -> None:
    x, y = (np.load(place / f"{side}.npy") for side in ("source", "target"))
    expected = BrenierMap(max_steps=5, random_state=3).fit(x, y).transport(x[:5])
    for suffix in FORMATS:
        files = place / f"source.{suffix}", place / f"target.{suffix}"
        summary(run("fit", *files, "--out", tmp_path / suffix, "--seed", "3", *FAST, "--json"))
        assert np.array_equal(BrenierMap.load(tmp_path / suffix).transport(x[:5]), expected)


def test_fit_replaces_an_earlier_map(place: Path, tmp_path: Path) -> None:
    for seed in ("0", "1"):
        arguments = ("--out", tmp_path / "map", "--seed", seed, *FAST, "--max-seconds", "60", "--json")
        summary(run("fit", place / "source.npy", place / "target.npy", *arguments))
    assert BrenierMap.load(tmp_path / "map").max_seconds == 60


def test_the_same_columns_in_another_order_are_matched_by_name(place: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(place / "target.csv")
    frame.assign(c=1.0)[["c", "b", "a"]].to_csv(tmp_path / "target.csv", index=False)
    arguments = ("--out", tmp_path / "map", "--columns", "a, b", *FAST, "--json")
    summary(run("fit", place / "source.csv", tmp_path / "target.csv", *arguments))
    frame[["b", "a"]].to_csv(tmp_path / "turned.csv", index=False)
    summary(run("fit", place / "source.csv", tmp_path / "turned.csv", "--out", tmp_path / "other", *FAST, "--json"))
    x = np.load(place / "source.npy")
    for name in ("map", "other"):
        assert np.array_equal(
            BrenierMap.load(tmp_path / name).transport(x), BrenierMap.load(place / "map").transport(x)
        )


def interrupted_at(step: int) -> Callable[..., Any]:
    """`SemiDual.loss` that a Ctrl-C stops at the given step."""
    original, count = SemiDual.loss, iter(range(10**6))

    def loss(self: SemiDual, model: Any) -> Any:
        if next(count) == step:
            raise KeyboardInterrupt
        return original(self, model)

    return loss


def test_a_fit_that_was_cut_off_is_saved_and_resumes_to_the_same_map(place: Path, tmp_path: Path) -> None:
    files = (place / "source.npy", place / "target.npy", "--max-steps", "30", "--json")
    options = partial(TrainingOptions, checkpoint_seconds=0.0, evaluate_every=5)
    with mock.patch("ot_lift.estimators.TrainingOptions", options):
        summary(run("fit", *files, "--out", tmp_path / "unbroken"))
        with mock.patch.object(SemiDual, "loss", interrupted_at(17)):
            cut = run("fit", *files, "--out", tmp_path / "map")
        assert summary(cut)["stop_reason"] == "interrupted"
        assert "--resume" in summary(cut)["warnings"][-1] and "--resume" in cut.stderr
        refused = run("fit", *files, "--out", tmp_path / "map")
        assert refused.exit_code == 2 and "add --resume" in refused.stderr
        whole = summary(run("fit", *files, "--out", tmp_path / "map", "--resume"))
    assert whole["stop_reason"] == "max_steps" and whole["steps"] == 30
    assert not (tmp_path / "map.checkpoints").exists()
    unbroken, resumed = (BrenierMap.load(tmp_path / name) for name in ("unbroken", "map"))
    x = np.load(place / "source.npy")
    assert np.array_equal(resumed.transport(x), unbroken.transport(x))


# ----------------------------------------------------------------------------- transport and invert
@pytest.mark.parametrize("into", FORMATS)
@pytest.mark.parametrize("out_of", FORMATS)
def test_points_go_there_and_back_in_every_format(out_of: str, into: str, place: Path, tmp_path: Path) -> None:
    moved, back = tmp_path / f"moved.{into}", tmp_path / f"back.{out_of}"
    found = summary(run("transport", place / "map", place / f"source.{out_of}", "--out", moved, "--json"))
    assert found["rows"] == 300 and found["features"] == 2 and found["warnings"] == []
    assert run("invert", place / "map", moved, "--out", back).stdout.startswith("Inverted 300 points")
    x = np.load(place / "source.npy")
    expected = BrenierMap.load(place / "map").transport(x)
    assert np.allclose(open_table(moved).array(), expected, rtol=1e-12, atol=1e-12)
    assert np.allclose(open_table(back).array(), x, atol=1e-6)
    names = None if "npy" in (into, out_of) else ["a", "b"]
    assert open_table(moved).columns == (names if into != "parquet" or names else ["x0", "x1"])


def test_a_file_is_streamed_in_chunks(place: Path, tmp_path: Path) -> None:
    rows: list[int] = []
    original = BrenierMap.transport

    def transport(self: BrenierMap, X: Array) -> Any:
        rows.append(len(X))
        return original(self, X)

    np.save(tmp_path / "many.npy", np.random.default_rng(0).normal(size=(70_000, 2)))
    with mock.patch.object(BrenierMap, "transport", transport):
        summary(run("transport", place / "map", tmp_path / "many.npy", "--out", tmp_path / "moved.npy", "--json"))
    assert rows == [65_536, 4_464]
    assert np.load(tmp_path / "moved.npy").shape == (70_000, 2)


def test_points_far_outside_are_moved_with_one_warning(place: Path, tmp_path: Path) -> None:
    pd.DataFrame({"b": [0.0, 900.0], "a": [0.0, 0.0]}).to_csv(tmp_path / "far.csv", index=False)
    arguments = ("--out", tmp_path / "moved.csv", "--columns", "a,b", "--json")
    result = run("transport", place / "map", tmp_path / "far.csv", *arguments)
    assert len(summary(result)["warnings"]) == 1
    assert result.stderr.startswith("warning: 1 of 2 points of X lie")
    assert list(pd.read_csv(tmp_path / "moved.csv").columns) == ["a", "b"]


def test_a_warning_that_comes_with_every_chunk_is_told_once(place: Path, tmp_path: Path) -> None:
    def transport(self: BrenierMap, X: Array) -> Array:
        warnings.warn(f"{len(X)} points are far", ExtrapolationWarning, stacklevel=1)
        return X

    np.save(tmp_path / "many.npy", np.zeros((140_000, 2)))
    with mock.patch.object(BrenierMap, "transport", transport):
        result = run("transport", place / "map", tmp_path / "many.npy", "--out", tmp_path / "moved.npy")
    assert result.stderr == "warning: 65536 points are far (and so in 2 more chunks)\n"


def test_a_numerical_failure_is_a_sentence_and_exit_code_1(place: Path, tmp_path: Path) -> None:
    failure = mock.Mock(side_effect=ConvergenceError("2 of 300 points\ndid not converge"))
    with mock.patch.object(BrenierMap, "invert", failure):
        result = run("invert", place / "map", place / "target.csv", "--out", tmp_path / "back.csv")
    assert result.exit_code == 1
    assert result.stderr == "ot-lift: 2 of 300 points did not converge\n"
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------------------------- bad input
@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that no command can take."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "words.csv").write_text("a,b\n1,red\n2,blue\n")
    (folder / "empty.csv").write_text("")
    (folder / "broken.parquet").write_bytes(b"PAR1 and no more")
    (folder / "text.txt").write_text("1,2\n")
    np.save(folder / "nan.npy", np.array([[1.0, 2.0], [np.nan, 4.0]] * 20))
    np.save(folder / "three.npy", np.ones((20, 3)))
    np.save(folder / "line.npy", np.ones(20))
    np.save(folder / "few.npy", np.eye(2))
    np.save(folder / "objects.npy", np.array([["a", 1]], dtype=object))
    (folder / "foreign").mkdir()
    (folder / "foreign" / "letter.txt").write_text("Dear all")
    (folder / "foreign" / "report.md").write_text("mine")
    return folder


BAD_INPUT = {
    "no such file": ("fit {bad}/none.csv {good}/target.csv --out {new}", "got nothing there"),
    "an unknown suffix": ("fit {bad}/text.txt {good}/target.csv --out {new}", "ends in .csv"),
    "words": ("fit {good}/source.csv {bad}/words.csv --out {new}", "got 'red' in row 0"),
    "an empty file": ("fit {bad}/empty.csv {good}/target.csv --out {new}", "the file is empty"),
    "a damaged file": ("fit {bad}/broken.parquet {good}/target.csv --out {new}", "damaged"),
    "NaN": ("fit {bad}/nan.npy {good}/target.npy --out {new}", "got NaN in row 1"),
    "other columns": ("fit {bad}/three.npy {good}/target.npy --out {new}", "got 2 and 3"),
    "one dimension": ("fit {bad}/line.npy {good}/target.npy --out {new}", "got (20,)"),
    "objects": ("fit {bad}/objects.npy {good}/target.npy --out {new}", "Python objects"),
    "too few rows": ("fit {bad}/few.npy {good}/target.npy --out {new}", "at least 6 rows"),
    "a missing column": ("fit {good}/source.csv {good}/target.csv --out {new} --columns a,z", "no such column"),
    "a device that is not here": ("fit {good}/source.csv {good}/target.csv --out {new} --device tpu", "got 'tpu'"),
    "a folder in use": ("fit {good}/source.csv {good}/target.csv --out {bad}/foreign", "something else"),
    "no map": ("transport {bad}/foreign {good}/source.csv --out {new}.csv", "without manifest.json"),
    "no folder": ("invert {bad}/none {good}/source.csv --out {new}.csv", "got nothing there"),
    "columns that the map lacks": ("transport {good}/map {bad}/three.npy --out {new}.csv", "expected 2 columns"),
    "NaN to transport": ("transport {good}/map {bad}/nan.npy --out {new}.csv", "got NaN in row 1"),
    "an unknown suffix to write": ("transport {good}/map {good}/source.csv --out {new}.txt", "ends in .csv"),
    "an unknown method": ("compare {good}/source.csv {good}/target.csv --out {new} --methods emd", "got 'emd'"),
    "all held out": ("compare {good}/source.csv {good}/target.csv --out {new} --held-out 1", "between 0 and 1"),
    "a report over files": (
        "compare {good}/source.csv {good}/target.csv --out {bad}/foreign",
        "report.md of something",
    ),
    "NaN to compare": ("compare {bad}/nan.npy {good}/target.npy --out {new}", "got NaN in row 1"),
    "a demo over files": ("demo --out {bad}/foreign", "report.md of something"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_a_sentence_and_exit_code_2(case: str, place: Path, bad: Path, tmp_path: Path) -> None:
    command, words = BAD_INPUT[case]
    result = run(*command.format(bad=bad, good=place, new=tmp_path / "new").split())
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("ot-lift: ")
    assert words in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments", [["fit", "a.csv"], ["fit", "a", "b", "--out", "c", "--max-steps", "0"], ["fly"], ["fit", "--wings"]]
)
def test_a_command_that_cannot_be_understood_has_exit_code_2(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == "" and "Traceback" not in result.stderr


# ---------------------------------------------------------------------------------- compare and demo
def test_compare_writes_a_report_with_ours_and_the_methods_asked_for(
    place: Path, tmp_path: Path, in_process: None
) -> None:
    files = (place / "source.csv", place / "target.parquet", "--out", tmp_path / "report")
    result = run("compare", *files, "--methods", "linear", "--seed", "4", *FAST, "--json")
    found = summary(result)
    assert [row["name"] for row in found["comparison"]["results"]] == ["linear", "ot-lift"]
    assert found["comparison"]["results"][1]["settings"]["max_steps"] == 5
    assert found["comparison"]["random_state"] == 4
    assert Path(found["report"]) == tmp_path / "report" / "report.html"
    assert found["link"] == (tmp_path / "report" / "report.html").as_uri()
    page = Path(found["report"]).read_text(encoding="utf-8")
    assert "From source.csv to target.parquet" in page
    assert "linear (1 of 2)" in result.stderr


def test_compare_takes_every_method_by_default(place: Path, tmp_path: Path) -> None:
    files = (place / "source.csv", place / "target.csv", "--out", tmp_path / "report")
    with mock.patch("ot_lift.compare.compare", side_effect=DataError("seen")) as compared:
        assert "seen" in run("compare", *files).stderr
    names = [method.name for method in compared.call_args.kwargs["methods"]]
    assert names == ["identity", "linear", "EMD", "Sinkhorn", "MappingTransport", "ot-lift"]


def test_the_demo_command_hands_on_its_options_and_tells_where_the_report_is(tmp_path: Path) -> None:
    page, found = tmp_path / "report.html", mock.Mock()
    found.to_dict.return_value = {"results": []}
    with (
        mock.patch("ot_lift.demo.colour_transfer", return_value=(page, found, {"Pixels": "many"})) as transfer,
        mock.patch("ot_lift.report_words.headline", return_value=["All is well."]),
    ):
        options = ("--pixels", "500", "--seed", "2", *FAST)
        text = run("demo", "--out", tmp_path, *options).stdout
        assert summary(run("demo", "--out", tmp_path, *options, "--json"))["facts"] == {"Pixels": "many"}
    assert text.splitlines()[0] == "- All is well." and "- Pixels: many." in text
    assert page.as_uri() in text and str(page) in text
    assert transfer.call_args.args == (tmp_path,)
    given = transfer.call_args.kwargs
    assert (given["pixels"], given["seed"], given["max_steps"]) == (500, 2, 5)


# --------------------------------------------------------------------------------- a real process
def test_a_real_process_answers_in_json_and_fails_in_a_sentence(place: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-m", "ot_lift.cli", "transport", str(place / "map"), str(place / "source.csv")]
    call = partial(subprocess.run, capture_output=True, text=True, env=environment, timeout=120)
    done = call([*command, "--out", str(tmp_path / "moved.npy"), "--json"])
    assert done.returncode == 0 and done.stderr == ""
    assert json.loads(done.stdout)["rows"] == 300
    assert np.load(tmp_path / "moved.npy").shape == (300, 2)
    failed = call([*command, "--out", str(tmp_path / "moved.doc")])
    assert failed.returncode == 2 and failed.stdout == ""
    assert failed.stderr.startswith("ot-lift: expected a file name") and failed.stderr.count("\n") == 1


@pytest.mark.slow
def test_compare_in_processes_of_their_own(place: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-m", "ot_lift.cli", "compare", str(place / "source.npy"), str(place / "target.npy")]
    command += ["--out", str(tmp_path / "report"), "--methods", "identity", *FAST]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=True)
    assert "file://" in done.stdout and "Traceback" not in done.stderr
    record = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert [row["status"] for row in record["comparison"]["results"]] == ["ok"] * 2
