"""The problems of the amortised benchmark are what they say, and its script writes its figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks import amortized
from benchmarks.amortized_problems import Banana, Darcy, LinearGaussian, LotkaVolterra, Problem
from benchmarks.lotka_volterra import populations, summaries
from ot_lift import AmortizedPosterior

TIMES = np.array([0.5, 1.0, 2.0])


def test_predators_that_only_die_thin_out_as_binomial_counts(rng: np.random.Generator) -> None:
    counts = populations(np.tile([0.0, 0.7, 0.0, 0.0], (2000, 1)), TIMES, rng)
    alive = np.exp(-0.7 * TIMES)
    error = (50 * alive * (1 - alive) / 2000) ** 0.5
    assert (np.abs(counts[:, :, 0].mean(0) - 50 * alive) < 4 * error).all()
    np.testing.assert_allclose(counts[:, :, 0].var(0), 50 * alive * (1 - alive), rtol=0.15)
    assert (counts[:, :, 1] == 100).all()


def test_prey_alone_grow_as_a_yule_process(rng: np.random.Generator) -> None:
    counts = populations(np.tile([0.0, 0.0, 0.5, 0.0], (500, 1)), TIMES, rng)
    growth = np.exp(0.5 * TIMES)
    error = (100 * growth * (growth - 1) / 500) ** 0.5
    assert (np.abs(counts[:, :, 1].mean(0) - 100 * growth) < 4 * error).all()


def test_a_predator_more_costs_no_prey_and_the_rates_are_in_their_places(rng: np.random.Generator) -> None:
    soon = np.array([1e-3])
    for reaction, (hazard, species, sign) in enumerate([(5000, 0, 1), (50, 0, -1), (100, 1, 1), (5000, 1, -1)]):
        rates = np.zeros((4000, 4))
        rates[:, reaction] = 1.0 / hazard
        change = populations(rates, 200 * soon, rng)[:, 0] - [50, 100]
        assert (sign * change[:, species]).mean() == pytest.approx(0.2, abs=0.03)
        assert (change[:, 1 - species] == 0).all()


def test_populations_that_do_not_change_have_finite_summaries(rng: np.random.Generator) -> None:
    counts = populations(np.zeros((3, 4)), TIMES, rng)
    assert (counts == [50, 100]).all()
    assert np.isfinite(summaries(counts)).all()


def test_summaries_are_those_of_their_names(rng: np.random.Generator) -> None:
    noted = rng.poisson(20.0, size=(1, 5000, 2)).astype(float)
    found = summaries(noted)[0]
    np.testing.assert_allclose(found[:2], np.log1p(noted.mean(1)[0]))
    np.testing.assert_allclose(found[2:4], np.log1p(noted.var(1)[0]))
    assert np.abs(found[4:]).max() < 0.07  # uncorrelated


def test_of_a_uniform_aquifer_the_pressure_is_a_parabola() -> None:
    problem, x = Darcy(), np.linspace(0.1, 0.9, 9)
    np.testing.assert_allclose(problem.pressures(np.full((1, 101), 0.3))[0], np.exp(-0.3) * x * (1 - x) / 2)


def test_of_an_aquifer_of_growing_permeability_the_pressure_converges() -> None:
    problem, x = Darcy(), np.linspace(0.1, 0.9, 9)
    # exp(u) = exp(x): p = ((x − c + 1) e^−x + c − 1), with c so that p(1) = 0.
    c = (1 - 2 / np.e) / (1 - 1 / np.e)
    exact = (x + 1 - c) * np.exp(-x) + c - 1
    np.testing.assert_allclose(problem.pressures(problem.grid), exact, rtol=0, atol=2e-6)


@pytest.mark.parametrize("features", [1, 2, 10])
def test_the_posterior_of_the_linear_problem_is_its_joint_density_up_to_a_constant(
    features: int, rng: np.random.Generator
) -> None:
    problem = LinearGaussian(features)
    theta, y = problem.simulate(20, rng)
    y = np.tile(y[:1], (20, 1))
    gap = problem.log_joint(theta, y) - problem.log_posterior(theta, y)
    np.testing.assert_allclose(gap, gap[0], rtol=1e-9)
    law = stats.multivariate_normal(np.zeros(features), problem.covariance)
    centre = np.linalg.solve(problem.noise**2 * np.eye(features) + problem.matrix.T @ problem.matrix, problem.matrix.T)
    np.testing.assert_allclose(problem.log_posterior(theta, y), law.logpdf(theta - y @ centre.T), rtol=1e-8)


def test_the_bananas_joint_density_is_that_of_its_simulations(rng: np.random.Generator) -> None:
    theta, y = Banana().simulate(30, rng)
    width = np.exp(0.3 * y[:, 0])
    exact = stats.norm.logpdf(y[:, 0]) + stats.loggamma(3.0, loc=y[:, 0], scale=width).logpdf(theta[:, 0])
    exact += stats.norm(y[:, 0] ** 2 + 0.5 * theta[:, 0], 0.5 * width).logpdf(theta[:, 1])
    gap = Banana().log_joint(theta, y) - exact
    np.testing.assert_allclose(gap, gap[0], rtol=1e-9)


def test_the_bananas_conditional_is_log_concave(rng: np.random.Generator) -> None:
    one, other = (3 * rng.normal(size=(500, 2)) for _ in range(2))
    y = 2 * rng.normal(size=(500, 1))
    first, middle, last = (Banana().log_joint(at, y) for at in (one, 0.5 * (one + other), other))
    assert (middle >= 0.5 * (first + last) - 1e-9).all()


@pytest.mark.parametrize("problem", [Banana(), Darcy(), LinearGaussian(3)], ids=lambda problem: problem.name)
def test_jax_gives_the_same_joint_density(problem: Problem, rng: np.random.Generator) -> None:
    jax = pytest.importorskip("jax")
    theta, y = problem.simulate(4, rng)
    with jax.enable_x64(True):
        found = [
            float(problem.log_joint(*(jax.numpy.asarray(at[k]) for at in (theta, y)), jax.numpy)) for k in range(4)
        ]
    np.testing.assert_allclose(found, problem.log_joint(theta, y), rtol=1e-9)


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What would be written, of a run on few pairs."""
    written: dict[str, Any] = {}
    monkeypatch.setattr(amortized, "write_record", lambda name, **record: written.update({name: record}))
    monkeypatch.setattr(amortized, "AmortizedPosterior", quick)
    monkeypatch.setattr(amortized, "PROBLEMS", {**amortized.PROBLEMS, "linear": lambda: [LinearGaussian(2)]})
    sizes = {"_FRESH": 400, "_SIMULATIONS": 100, "_RANKED": 19, "_TIMED": 20, "_WEIGHED": (5, 100)}
    for name, value in sizes.items():
        monkeypatch.setattr(amortized, name, value)
    for kind in (Problem, LotkaVolterra):
        monkeypatch.setattr(kind, "pairs", 600)
    return written


def quick(**options: Any) -> AmortizedPosterior:
    """A posterior whose defaults take a moment."""
    settings = {"hidden_features": (8, 8), "context_hidden_features": (8,), "batch_size": 128, "max_steps": 20}
    return AmortizedPosterior(**{**settings, **options})


def test_the_linear_part_writes_its_figures(records: dict[str, Any]) -> None:
    amortized.part("linear", [0], busy=True)
    rows = {row["figure"]: row for row in records["amortized-linear"]["figures"]}
    divergence = rows["linear-Gaussian, d = 2: KL to the exact posterior (nats a dimension)"]
    assert divergence["target"] == "≤ 0.02" and 0 < divergence["value"] < 0.02
    assert rows["linear-Gaussian, d = 2:   the same, of the start"]["value"] == divergence["value"]


@pytest.mark.filterwarnings("ignore::ot_lift.errors.ExtrapolationWarning")
def test_a_simulator_without_a_likelihood_is_judged_by_simulation(records: dict[str, Any]) -> None:
    amortized.part("lotka-volterra", [0], busy=True)
    (found,) = records["amortized-lotka-volterra"]["details"][LotkaVolterra.name]
    assert "log joint density" not in found["calibration"]["p_values"] and "two_sample" not in found
    assert found["nll"] <= found["gaussian_nll"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_banana_is_held_against_nuts(records: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numpyro", reason="needs the extra `posteriors`: pip install 'ot-lift[posteriors]'")
    monkeypatch.setattr(amortized, "_OBSERVATIONS", 1)
    monkeypatch.setattr(amortized, "_NUTS_DRAWS", 200)
    amortized.part("banana", [0], busy=True)
    (row,) = records["amortized-banana"]["details"]["banana"][0]["two_sample"]
    assert 0.4 < row["accuracy"] <= 1.0 and row["r_hat"] < 1.1


def test_importance_weights_give_the_divergence_of_a_wider_posterior(rng: np.random.Generator) -> None:
    problem = LinearGaussian(1)
    _, y = problem.simulate(60, rng)
    width = 1.2 * problem.covariance[0, 0] ** 0.5

    class Wide:
        """The exact posterior, a fifth wider."""

        def centre(self, y: np.ndarray) -> np.ndarray:
            return np.asarray(y @ (problem.matrix / problem.noise**2) @ problem.covariance)

        def sample(self, y: np.ndarray, n: int, *, random_state: int) -> np.ndarray:
            noise = np.random.default_rng(random_state).normal(size=(len(y), n, 1))
            return np.asarray(self.centre(y)[:, None] + width * noise)

        def log_prob(self, theta: np.ndarray, y: np.ndarray) -> np.ndarray:
            return np.asarray(stats.norm.logpdf(theta - self.centre(y), 0, width)[:, 0])

    found = amortized.divergence(problem, Wide(), y)  # type: ignore[arg-type]
    exact = np.log(1.2) + 0.5 / 1.2**2 - 0.5
    assert abs(found["divergence"] - exact) < 5 * found["divergence_standard_error"] + 1e-4
    assert 0.9 < found["effective_share"] < 1.0
