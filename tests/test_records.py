"""Records of the long benchmarks exist, are of the code's present settings, and hold every figure they stand for."""

from __future__ import annotations

import pytest

from benchmarks.density_quality import both_defaults
from benchmarks.quality import defaults
from benchmarks.record import read_record
from ot_lift import AmortizedPosterior, PosteriorMap
from ot_lift.conjugate import NEWTON_CG_FROM
from ot_lift.logdet import SOLVE_COST, STOCHASTIC_FROM

DIMENSIONS = ("wasserstein2-d2", "wasserstein2-d8", "wasserstein2-d32")
RECORDS = (*DIMENSIONS, "conjugation", "finite_samples", "gaussian", "large_files", "lift_cost", "throughput")


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_exists_and_was_measured_with_the_defaults_of_today(name: str) -> None:
    assert read_record(name)["settings"]["defaults"] == defaults(), f"run: python -m benchmarks.{name.split('-')[0]}"


@pytest.mark.parametrize("name", DIMENSIONS)
def test_a_wasserstein2_record_has_the_curve_of_every_run(name: str) -> None:
    for run in read_record(name)["details"]["runs"]:
        seconds = [point[0] for point in run["curve"]]
        assert len(seconds) > 5 and seconds == sorted(seconds)


def test_the_crossover_of_the_code_is_the_one_that_was_timed() -> None:
    assert read_record("conjugation")["settings"]["crossover"] == NEWTON_CG_FROM


def test_log_determinants_were_timed_with_the_crossover_of_the_code() -> None:
    settings = read_record("log_determinant")["settings"]
    assert (settings["stochastic_from"], settings["solve_cost"]) == (STOCHASTIC_FROM, SOLVE_COST)


@pytest.mark.parametrize("part", ["gaussian", "planar"])
def test_densities_were_fitted_with_the_defaults_of_today(part: str) -> None:
    assert read_record(f"density_quality-{part}")["settings"]["defaults"] == both_defaults()


@pytest.mark.parametrize("name", ["posterior_maps", "posterior_maps-large"])
def test_posterior_maps_were_fitted_with_the_defaults_of_today(name: str) -> None:
    assert read_record(name)["settings"]["defaults"] == defaults(PosteriorMap)


@pytest.mark.parametrize("problem", ["linear", "banana", "lotka-volterra", "darcy"])
def test_amortised_posteriors_were_fitted_with_the_defaults_of_today(problem: str) -> None:
    assert read_record(f"amortized-{problem}")["settings"]["defaults"] == defaults(AmortizedPosterior)
