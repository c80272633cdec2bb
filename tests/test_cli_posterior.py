"""`ot-lift posterior`: names and modules, what it writes, and errors in one sentence."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

arviz = pytest.importorskip("arviz", reason="needs the extra `posteriors`: pip install 'ot-lift[posteriors]'")
pytest.importorskip("numpyro", reason="needs the extra `posteriors`: pip install 'ot-lift[posteriors]'")

from ot_lift.cli import app  # noqa: E402
from ot_lift.cli_posterior import read_arguments  # noqa: E402
from ot_lift.errors import DataError  # noqa: E402
from ot_lift.numpyro_nuts import NutsRun  # noqa: E402
from ot_lift.posterior import PosteriorMap  # noqa: E402
from ot_lift.report_posterior import PosteriorRun, check_posterior_folder  # noqa: E402

MODEL = """
import numpyro
import numpyro.distributions as dist

def heights(y, scale):
    mean = numpyro.sample("mean", dist.Normal(0.0, 10.0))
    numpyro.sample("y", dist.Normal(mean, scale), obs=y)

def broken(y, scale):
    raise LookupError("no column called age")
"""


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["posterior", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of models and their data, from which the command is run."""
    (tmp_path / "my_models_of_heights.py").write_text(MODEL)
    (tmp_path / "data.json").write_text(json.dumps({"y": [1.0, 2.0, 3.0], "scale": 1.0}))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_model_in_a_module_is_fitted_and_everything_is_written(place: Path) -> None:
    result = run("my_models_of_heights:heights", "--data", "data.json", "--out", "out", "--draws", "2000", "--json")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout, parse_constant=pytest.fail)
    assert (summary["verdict"], summary["posterior"]) == ("good", "my_models_of_heights:heights")
    out = place / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        *("draws.nc", "draws.parquet", "map", "report.html", "report.json")
    ]
    table = pd.read_parquet(out / "draws.parquet")
    precision = 3 + 1 / 100
    assert list(table.columns) == ["mean"]
    assert abs(table["mean"].mean() - 6 / precision) < 4 / math.sqrt(2000 * precision)
    data = arviz.from_netcdf(out / "draws.nc")
    np.testing.assert_allclose(np.asarray(data["posterior"]["mean"]).ravel(), table["mean"])
    assert data["log_likelihood"]["y"].shape == (4, 500, 3)
    assert PosteriorMap.load(out / "map").n_features_in_ == 1
    report = json.loads((out / "report.json").read_text(), parse_constant=pytest.fail)
    assert report["moments"][0]["mean"] == pytest.approx(table["mean"].mean())
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<h1>my_models_of_heights:heights</h1>" in page
    assert "NUTS was not run" in page
    again = run("my_models_of_heights:heights", "--data", "data.json", "--out", "out")
    assert again.exit_code == 0  # an earlier result is replaced
    assert again.stdout.startswith("good")


@pytest.mark.slow
def test_a_name_of_the_catalogue_beside_nuts(place: Path) -> None:
    result = run("linear_diabetes", "--out", "out", "--reference")
    assert result.exit_code == 0, result.stderr
    report = json.loads((place / "out" / "report.json").read_text())
    assert max(abs(row["shift"]) for row in report["moments"]) < 0.15
    assert max(abs(row["ratio"] - 1) for row in report["moments"]) < 0.1
    assert report["nuts"]["min_ess"] > 1000
    assert "Beside NUTS" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing",), "expected module:model or one of .*linear_diabetes.*, got 'nothing'"),
        (("nowhere_at_all:model",), "expected a module 'nowhere_at_all' here or among the installed ones, got none"),
        (("my_models_of_heights:weights",), "expected a function 'weights' in my_models_of_heights, got None"),
        (("linear_diabetes", "--data", "data.json"), "expected --data with module:model only"),
        (("linear_diabetes", "--draws", "10"), "multiple of 4 chains, got 10"),
        (("linear_diabetes", "--direction", "up"), "forward or inverse, got 'up'"),
        (("my_models_of_heights:heights", "--data", "none.json"), "expected a file of data at none.json, got none"),
    ],
)
def test_bad_input_ends_in_one_sentence(place: Path, arguments: tuple[str, ...], words: str) -> None:
    result = run(*arguments, "--out", "out")
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    assert re.search(words, line), line
    assert not (place / "out").exists()


def test_a_models_own_error_is_shown(place: Path) -> None:
    with pytest.raises(LookupError, match="no column called age"):
        run("my_models_of_heights:broken", "--data", "data.json", "--out", "out")


def test_arguments_are_read_from_every_kind_of_file(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1.5, 2.5], "count": [3, 4]})
    frame.to_csv(tmp_path / "data.csv", index=False)
    frame.to_parquet(tmp_path / "data.parquet")
    np.savez(tmp_path / "data.npz", x=frame["x"], count=frame["count"])
    (tmp_path / "data.json").write_text(json.dumps(frame.to_dict(orient="list")))
    for suffix in ("csv", "parquet", "npz", "json"):
        read = read_arguments(tmp_path / f"data.{suffix}")
        assert {name: values.tolist() for name, values in read.items()} == {"x": [1.5, 2.5], "count": [3, 4]}
        assert read["x"].dtype == np.float64
    (tmp_path / "data.txt").write_text("1")
    with pytest.raises(DataError, match=r"ends in \.json, \.npz, \.csv or \.parquet, got 'data\.txt'"):
        read_arguments(tmp_path / "data.txt")
    (tmp_path / "list.json").write_text("[1, 2]")
    with pytest.raises(DataError, match="hold arguments by name"):
        read_arguments(tmp_path / "list.json")


def test_another_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear all")
    with pytest.raises(DataError, match="expected nothing or an earlier result"):
        check_posterior_folder(tmp_path)


def make_run(fit_seconds: float, draw_seconds: float, nuts: tuple[float, float, float] | None) -> PosteriorRun:
    """1,000 draws of which half are effective; NUTS by total time, time of the second leg and ESS."""
    sites: dict[str, Any] = {"a": np.arange(1000.0)}
    diagnosis = {"effective": 50.0, "draws": 100}
    reference = (
        None if nuts is None else NutsRun({"a": np.arange(8.0).reshape(4, 2)}, nuts[0], nuts[1], nuts[2], 1.0, 0)
    )
    return PosteriorRun("toy", sites, diagnosis, {}, "good", fit_seconds, draw_seconds, reference)


def test_the_break_even_is_where_both_times_are_equal() -> None:
    paid = make_run(10.0, 1.0, (6.0, 2.0, 400.0))  # NUTS: 2 s of start, then 100 a second; the map: 500 a second
    assert (paid.ess_per_second, paid.reference.ess_per_second) == (500.0, 100.0)
    count = paid.break_even()
    assert 10.0 + count / 500.0 == pytest.approx(2.0 + count / 100.0)
    assert f"after {count:,.0f} effective draws" in paid.sentences()[-1]


def test_where_nuts_wins_it_is_said() -> None:
    slow = make_run(10.0, 10.0, (6.0, 2.0, 400.0))
    assert math.isinf(slow.break_even())
    assert "does not pay" in slow.sentences()[-1]
    assert make_run(1.0, 1.0, (6.0, 2.0, 400.0)).break_even() == 0.0
    assert math.isnan(make_run(1.0, 1.0, None).break_even())
