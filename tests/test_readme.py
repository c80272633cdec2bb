"""The README and what it speaks of agree."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.findings import documents
from benchmarks.readme import BEGIN, END, MEASUREMENTS, main, measured, measurements, said, with_table
from benchmarks.record import RESULTS, figure, read_record, read_records, write_record
from ot_lift.training import TrainingOptions

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def code_block(language: str) -> str:
    (block,) = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    return block


def test_the_measured_tables_are_those_that_the_records_give() -> None:
    table = measured(read_records()) + said(documents(RESULTS / "cells"))
    assert with_table(README, table) == README, "run: python -m benchmarks.readme"
    assert measurements(read_records()) == MEASUREMENTS.read_text(encoding="utf-8"), "run: python -m benchmarks.readme"
    assert "| Others |" not in table, "a record is about no subject of benchmarks.readme"


def test_the_two_commands_are_the_main_job_and_the_test_command_that_ci_runs() -> None:
    commands = [line.partition("#")[0].strip() for line in code_block("sh").splitlines()]
    assert commands == ["./run ot-lift demo", "./run pytest"]
    last = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1]
    assert last.endswith(f" {commands[1]}")


def test_links_lead_to_files_of_the_repository() -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)", README) if "://" not in target]
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target


def linear_regression(X: np.ndarray, y: np.ndarray) -> None:
    """A NumPyro model."""
    import numpyro
    import numpyro.distributions as dist

    slopes = numpyro.sample("slopes", dist.Normal(0.0, 1.0).expand([X.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Normal(X @ slopes, 1.0), obs=y)


def few_steps(**options: Any) -> TrainingOptions:
    """The code is to run; what a whole fit comes to is asked elsewhere."""
    return TrainingOptions(**{**options, "max_steps": min(options["max_steps"], 50)})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_code_runs_as_it_stands(
    rng: np.random.Generator, forked_rng: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numpyro", reason="needs the extra `posteriors`: pip install 'ot-lift[posteriors]'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ot_lift.estimators.TrainingOptions", few_steps)
    theta = rng.normal(size=(400, 2))
    names = {
        "theta": theta,
        "simulated": theta @ np.ones((2, 3)) + rng.normal(size=(400, 3)),
        "observed": np.zeros(3),
        "regression": linear_regression,
        "y": rng.normal(size=400),
        "X": rng.normal(size=(400, 2)),
        "Y": rng.normal(size=(300, 2)) @ np.array([[2.0, 0.5], [0.0, 1.0]]) + 3,
        "X_new": rng.normal(size=(5, 2)),
        "Y_new": rng.normal(size=(5, 2)) + 3,
        "X_reference": torch.zeros(8, 2),
        "net": torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Softplus(), torch.nn.Linear(8, 1)),
    }
    exec(code_block("python"), names)  # the README's own code
    assert (tmp_path / "map").is_dir()


def test_a_record_is_read_as_it_was_written_and_shown_in_the_table(tmp_path: Path) -> None:
    figures = [
        figure("L2-UVP (%)", 0.1234, at_most=0.2, spread=[0.12, 0.13]),
        figure("GFLOP/s", 9.0, at_least=12),
        figure("identity (%)", 42.5),
    ]
    write_record("toy", settings={"steps": 3}, seeds=[0, 1], figures=figures, directory=tmp_path / "results")
    record = read_record("toy", directory=tmp_path / "results")
    assert record["figures"] == figures
    assert record["settings"] == {"steps": 3}
    assert record["seeds"] == [0, 1]
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["toy.json"]

    readme, docs = tmp_path / "README.md", tmp_path / "docs" / "measurements.md"
    readme.write_text(f"top\n{BEGIN}\n{END}\nend\n", encoding="utf-8")
    options = ["--readme", str(readme), "--measurements", str(docs), "--results", str(tmp_path / "results")]
    assert main([*options, "--check"]) == 1
    assert main(options) == 0
    assert main([*options, "--check"]) == 0
    texts = readme.read_text(encoding="utf-8"), docs.read_text(encoding="utf-8")
    assert "| L2-UVP (%) | **0.123** | ≤ 0.2 |  |" in texts[0]
    assert "| L2-UVP (%) | **0.123** | ≤ 0.2 | 0.12 to 0.13 (2) |" in texts[1]
    assert "| GFLOP/s | 9 (missed) | ≥ 12 | 1 |" in texts[1]
    assert not any("identity" in text for text in texts)


def test_the_readme_has_the_worst_of_figures_that_differ_in_their_setting() -> None:
    names = {"rate, d = 2, warm: speed-up": 3.0, "rate, d = 8, warm: speed-up": 1.5, "   the same: memory (MiB)": 7.0}
    figures = [figure(name, value, at_least=2) for name, value in names.items()]
    record = {"name": "toy", "figures": figures, "machine": read_records()[0]["machine"]}
    table = measured([record])
    assert "| rate, warm: speed-up | 1.5 (missed by 1 of 2) | ≥ 2 | 1.5 to 3 (2 settings) |" in table
    assert "| rate, d = 8, warm: memory (MiB) | **7** | ≥ 2 |  |" in table


def test_a_record_names_no_host_user_or_path(tmp_path: Path) -> None:
    import getpass
    import socket

    path = write_record("toy", settings={}, seeds=[], figures=[], directory=tmp_path)
    values = json.dumps(json.loads(path.read_text(encoding="utf-8"))["machine"])
    for secret in (socket.gethostname(), str(Path.home()), str(ROOT), f'"{getpass.getuser()}"'):
        assert secret not in values


def test_a_failed_write_leaves_the_earlier_record(tmp_path: Path) -> None:
    write_record("toy", settings={"steps": 3}, seeds=[], figures=[], directory=tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_record("toy", settings={"steps": float("nan")}, seeds=[], figures=[], directory=tmp_path)
    assert read_record("toy", directory=tmp_path)["settings"] == {"steps": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["toy.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "other"}, "expected the record 'toy', got 'other'"),
        ({"machine": {}}, "does not say the machine's cpu"),
        ({"figures": [{"figure": "a", "value": 1.0}]}, "expected rows with"),
        (
            {"figures": [{"figure": "a", "value": 3.0, "target": "≤ 2", "met": True, "spread": None}]},
            "says met=True",
        ),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    path = write_record("toy", settings={}, seeds=[], figures=[], directory=tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_record("toy", directory=tmp_path)


def test_a_figure_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a finite value"):
        figure("L2-UVP", float("nan"), at_most=1.0)
    with pytest.raises(ValueError, match="got both"):
        figure("L2-UVP", 1.0, at_most=1.0, at_least=1.0)


def test_a_readme_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="put them back"):
        with_table("no markers", "table")
