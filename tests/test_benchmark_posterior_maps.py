"""The benchmark of posterior maps: which figures are judged, and a reference that needs no long NUTS run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("numpyro", reason="needs the extra `posteriors`: pip install 'ot-lift[posteriors]'")
pytest.importorskip("arviz", reason="needs the extra `posteriors`: pip install 'ot-lift[posteriors]'")

import posteriors
from benchmarks.posterior_maps import entries, gold_rows, latent_nuts, rows_of
from ot_lift import PosteriorMap


def measured(
    d: int, *, seconds: float, nuts: float | None, r_hat: float = 1.001, error: float = 0.01
) -> dict[str, Any]:
    """What is measured of a target, as far as the rows look."""
    errors = {"mean": error, "mean beyond": error - 0.01, "mean in MCSE": 2.0}
    errors |= {"sd": error, "sd beyond": error - 0.01, "sd in MCSE": 2.5}
    chain = {"compilation": 2.0, "effective draws a second": 10.0, "seconds": nuts}
    return {
        "target": f"target{d}",
        "seed": 0,
        "d": d,
        "k_hat": 0.3,
        "errors": errors,
        "errors, corrected": errors,
        "fit seconds": seconds,
        "map seconds": seconds,
        "map effective draws a second": 5000.0,
        "NUTS": None if nuts is None else chain,
        "inverse": None if nuts is None else {"effective draws a second": 40.0, "errors": errors},
        "reference": {"kind": "NUTS" if nuts else "NUTS in the latent space", "r_hat": r_hat, "bulk_ess": 900.0},
    }


def by_name(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["figure"]: row for row in rows}


def test_large_targets_are_reported_and_only_the_others_are_judged() -> None:
    found = [
        measured(5, seconds=3.0, nuts=4.0),
        measured(31, seconds=5.0, nuts=4.0),
        measured(153, seconds=99.0, nuts=None, r_hat=1.2, error=0.3),
    ]
    rows = by_name(rows_of(found))
    share = "share of targets on which fit + 4,000 effective draws take no longer than NUTS"
    assert rows[f"{share}, compilation counted"]["value"] == 1.0
    assert rows[f"{share}, compiled before"]["value"] == 0.5
    assert rows["inverse direction: effective draws a second after the fit, over NUTS (median)"]["value"] == 4.0
    assert rows["catalogue, d ≤ 64: largest error of a mean beyond 3 MCSE (posterior sd)"]["spread"] == [0.0, 0.0]
    assert rows["target153, d = 153: largest error of a mean (posterior sd)"]["met"] is None
    assert rows["target153, d = 153: NUTS in the latent space, R-hat"]["met"] is False


def test_shares_are_those_of_each_seed() -> None:
    found = [measured(5, seconds=seconds, nuts=4.0) | {"seed": seed} for seed, seconds in enumerate((3.0, 5.0, 3.5))]
    row = by_name(rows_of(found))[
        "share of targets on which fit + 4,000 effective draws take no longer than NUTS, compiled before"
    ]
    assert (row["value"], row["spread"]) == (1.0, [1.0, 0.0, 1.0])


def test_errors_against_gold_standard_draws_are_judged() -> None:
    mean, deviation = gold_rows([{"mean": 0.01, "sd": 0.02}, {"mean": 0.02, "sd": 0.06}])
    assert (mean["value"], mean["met"]) == (0.02, True)
    assert (deviation["value"], deviation["met"]) == (0.06, False)


def test_a_large_target_alone_has_rows() -> None:
    rows = rows_of([measured(256, seconds=99.0, nuts=None)])
    assert all("d = 256" in row["figure"] for row in rows)
    assert by_name(rows)["target256, d = 256: NUTS in the latent space, R-hat"]["met"] is True


@pytest.mark.slow
def test_nuts_in_the_latent_space_draws_from_the_posterior(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.posterior_maps._LATENT_DRAWS", 500)
    posterior = posteriors.load("linear_diabetes")
    fitted = PosteriorMap(max_steps=10, random_state=0).fit(posterior)
    reference, seconds = latent_nuts(fitted, posterior, 0)
    assert seconds > 0
    assert reference.r_hat < 1.02
    assert set(reference.draws) == {"intercept", "slopes"}
    mean = entries({name: draws.reshape(-1, *draws.shape[2:]) for name, draws in reference.draws.items()}, 1).mean(0)
    deviation = np.sqrt(np.diag(posterior.covariance))
    assert np.abs((mean - posterior.mean) / deviation).max() < 5 / np.sqrt(reference.bulk_ess)
