"""The demo's posterior: its density, and its section of the report; `test_demo` holds it against NUTS."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ot_lift.compare import compare
from ot_lift.demo_posterior import IrisRegression, posterior_section
from ot_lift.methods import IdentityMethod
from ot_lift.report import Section, write_report


@pytest.fixture(scope="module")
def told() -> list[str]:
    return []


@pytest.fixture(scope="module")
def alone(told: list[str]) -> Section:
    """A short fit where NumPyro is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "numpyro", None)
        return posterior_section(max_steps=60, tell=told.append)


def test_without_numpyro_there_is_a_map_a_verdict_and_one_sentence(alone: Section, told: list[str]) -> None:
    assert told == ["a posterior: fitting a map"]
    assert re.match(r"Diagnosis: (good|correct) \(k-hat [\d.]+, importance ESS", alone.sentences[0])
    assert alone.sentences[-1].startswith("NUTS was not run beside it: it needs NumPyro")
    assert alone.record["nuts"] is None
    assert [row["label"] for row in alone.record["moments"]] == list(IrisRegression().names)


def test_the_section_stands_in_every_file_of_a_report(alone: Section, tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(100, 2))
    found = compare(X, X + 1, methods=[IdentityMethod()], isolated=False)
    page = write_report(found, tmp_path, title="Shift", ours="identity", sections=[alone])
    (plot,) = alone.plots
    assert (tmp_path / "figures" / "posterior.png").read_bytes() == plot.picture.light
    assert plot.picture.light != plot.picture.dark
    for text in (page.read_text(encoding="utf-8"), (tmp_path / "report.md").read_text(encoding="utf-8")):
        for words in (alone.title, plot.title, plot.sentence, alone.sentences[-1].partition("'")[0]):
            assert words in text
    record = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert record["sections"]["a-posterior"]["verdict"] == alone.record["verdict"]


def test_the_density_is_the_numpyro_models() -> None:
    pytest.importorskip("numpyro", reason="needs the extra `posteriors`: pip install 'ot-lift[posteriors]'")
    from ot_lift.numpyro import from_numpyro

    ours = IrisRegression()
    theirs = from_numpyro(ours.model)
    assert theirs.names == ours.names
    x = 4 * torch.rand(50, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 2
    torch.testing.assert_close(ours.log_density(x), theirs.log_density(x), rtol=1e-10, atol=1e-8)
