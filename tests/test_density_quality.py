"""The densities and the yardsticks of the benchmark of densities are what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import density_quality
from benchmarks.density_peers import two_sample_accuracy
from benchmarks.density_quality import draw, gaussian, gaussian_part, planar_part
from benchmarks.planar import PLANAR
from ot_lift import ConvexPotentialFlow


@pytest.mark.parametrize("name", PLANAR)
def test_planar_densities_have_a_total_of_one_and_their_own_samples(name: str, generator: torch.Generator) -> None:
    law = PLANAR[name]
    square = 10 * torch.rand(8000, 2, generator=generator, dtype=torch.float64) - 5
    density = 100 * law.log_prob(square).exp()
    assert abs(float(density.mean()) - 1) < 4 * float(density.std()) / 8000**0.5
    # The mean over samples of any function is that of its product with the density over the square.
    for function in (lambda x: x[:, 0], lambda x: x[:, 1].abs(), lambda x: (4 * x).cos().sum(1)):
        drawn, weighed = function(law.sample(8000, generator)), function(square) * density
        error = (float(drawn.var() + weighed.var()) / 8000) ** 0.5
        assert abs(float(drawn.mean() - weighed.mean())) < 4 * error


def test_the_gaussians_have_the_condition_asked_for() -> None:
    law = gaussian(5, 0)
    assert float(torch.linalg.cond(law.covariance_matrix)) == pytest.approx(1e4, rel=1e-6)
    assert torch.equal(draw(law, 9, 1), draw(law, 9, 1))


def test_the_classifier_tells_apart_what_differs_and_nothing_else(rng: np.random.Generator) -> None:
    one, other = rng.normal(size=(1000, 2)), rng.normal(size=(1000, 2))
    accuracy, error = two_sample_accuracy(one, other, seed=0)
    assert abs(accuracy - 0.5) < 4 * error
    assert two_sample_accuracy(one, other + 1, seed=0)[0] > 0.6


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What would be written, of a run on few points."""
    written: dict[str, Any] = {}
    monkeypatch.setattr(density_quality, "write_record", lambda name, **record: written.update({name: record}))
    monkeypatch.setattr(density_quality, "zuko_is_there", lambda: False)
    for name, rows in (("_ROWS", 1000), ("_EVALUATION_ROWS", 1000), ("_TWO_SAMPLE_ROWS", 200)):
        monkeypatch.setattr(density_quality, name, rows)
    return written


def test_the_gaussian_part_writes_its_figures(records: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density_quality, "_ESTIMATORS", (quick,))
    gaussian_part([0], [2])
    (record,) = records.values()
    assert record["figures"][0]["target"] == "≤ 0.01"
    assert record["details"]["quick, d = 2"][0]["used_network"] is False


def test_the_planar_part_stands_without_its_peers(records: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density_quality, "ConvexPotentialFlow", quick)
    planar_part([0], ["one_moon"], 1.0)
    (record,) = records.values()
    rows = {row["figure"]: row["value"] for row in record["figures"]}
    above = {which: rows[f"  one_moon, {which}: NLL above the truth's (nats)"] for which in ("flow", "Gaussian")}
    assert 0 < above["flow"] < above["Gaussian"]


def quick(**options: Any) -> ConvexPotentialFlow:
    """A flow whose defaults take a moment."""
    settings = {"hidden_features": (8, 8), "batch_size": 128, "max_steps": 20}
    return ConvexPotentialFlow(**{**settings, **options})
