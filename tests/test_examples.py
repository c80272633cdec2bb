"""The examples run as they are, and their figures are what they say."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

FOLDER = Path(__file__).parent.parent / "examples"

# What must hold of the names that a script leaves behind.
HOLDS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "amortized_posterior": lambda left: abs(left["divergence"]) < 0.02 and left["calibration"].p_value > 0.01,
    "density_flow": lambda left: (
        left["truth"] - left["score"] < 0.1 < 1 < left["score"] - left["gaussian"] and left["round_trip"] < 1e-6
    ),
    "gaussian_map": lambda left: left["error"] < 0.5 and left["round_trip"] < 1e-6,
    "lift_your_own_network": lambda left: (
        left["loss"].item() < 0.2 and left["smallest"] >= 0 and isinstance(left["plain"], nn.Module)
    ),
    "log_concave_density": lambda left: (
        abs(left["truth"] - left["score"]) < 0.03 and abs(left["ratio"] / left["exact"] - 1) < 0.2
    ),
    "pipeline": lambda left: left["scores"][200] > left["scores"][10] and np.abs(left["back"] - left["X"]).max() < 0.1,
    "posterior_map": lambda left: left["verdict"] == "good" and left["error"] < 0.1,
    "pot_port": lambda left: left["errors"]["BrenierMap"] < 0.5 * left["errors"]["LinearTransport"],
    "quantiles": lambda left: left["error"] < 0.5 * left["baseline"],
    "save_load": lambda left: left["same"],
    "stream": lambda left: left["error"] < 5,
}


def test_every_example_is_tested_and_has_nothing_left_over() -> None:
    assert sorted(path.name for path in FOLDER.iterdir() if path.name != "__pycache__") == [
        f"{name}.py" for name in sorted(HOLDS)
    ]


@pytest.mark.parametrize("name", HOLDS)
def test_an_example_runs_and_its_figures_hold(
    name: str,
    forked_rng: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)  # it may write nothing beside itself
    left = runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    written = capsys.readouterr()
    assert HOLDS[name](left), written.out
    assert written.out
    assert written.err == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", HOLDS)
def test_an_example_is_short_and_says_what_it_shows(name: str) -> None:
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert text.startswith('"""')
    assert len(text.splitlines()) < 40
