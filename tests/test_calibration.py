"""Calibration: exact posteriors pass, wrong ones are caught; bands and p-values have their level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from amortized_fits import LINEAR, Linear, linear_fit
from scipy import stats
from sklearn.linear_model import LogisticRegression

from ot_lift.calibration import (
    Ranks,
    c2st,
    expected_coverage,
    held_out_nll,
    rank_histograms,
    simulation_ranks,
)
from ot_lift.errors import DataError

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scaled:
    """The exact posterior of a linear model, moved, and wider or narrower by a factor."""

    model: Linear
    factor: float = 1.0
    shift: float = 0.0

    def sample(self, y: Array, n: int, *, random_state: Any) -> Array:
        noise = np.random.default_rng(random_state).normal(size=(len(y), n, self.model.matrix.shape[1]))
        root = np.linalg.cholesky(self.model.covariance())
        return self.model.centre(y)[:, None] + self.shift + self.factor * noise @ root.T

    def log_prob(self, theta: Array, y: Array) -> Array:
        law = stats.multivariate_normal(np.zeros(theta.shape[1]), self.factor**2 * self.model.covariance())
        return np.asarray(law.logpdf(theta - self.model.centre(y) - self.shift))


class Prior:
    """Draws of the prior, whatever was observed."""

    def sample(self, y: Array, n: int, *, random_state: Any) -> Array:
        return LINEAR.mean + np.random.default_rng(random_state).normal(size=(len(y), n, 2))

    def log_prob(self, theta: Array, y: Array) -> Array:
        return np.asarray(-0.5 * ((theta - LINEAR.mean) ** 2).sum(1) - np.log(2 * np.pi))


def log_joint(theta: Array, y: Array) -> Array:
    """Log p(θ, y) of the linear model, up to a constant."""
    misfit = (y - theta @ LINEAR.matrix.T) / LINEAR.noise
    return np.asarray(-0.5 * ((theta - LINEAR.mean) ** 2).sum(1) - 0.5 * (misfit**2).sum(1))


def ranks_of(posterior: Any, rng: np.random.Generator, simulations: int = 1000) -> Ranks:
    return simulation_ranks(posterior, *LINEAR.draw(simulations, rng), log_joint=log_joint)


def test_the_exact_posterior_is_uniform(rng: np.random.Generator) -> None:
    ranks = ranks_of(Scaled(LINEAR), rng)
    found = rank_histograms(ranks)
    assert ranks.names == ("θ1", "θ2", "log density", "log joint density")
    assert found.p_value > 0.01 and found.inside and found.counts.sum(1).tolist() == [1000] * 4
    assert expected_coverage(ranks).inside


@pytest.mark.parametrize(("factor", "shift"), [(0.8, 0.0), (1.25, 0.0), (1.0, 0.15)])
def test_a_wrong_width_or_place_is_caught(factor: float, shift: float, rng: np.random.Generator) -> None:
    found = rank_histograms(ranks_of(Scaled(LINEAR, factor, shift), rng))
    assert found.p_value < 1e-4 and not found.inside


def test_coverage_says_on_which_side(rng: np.random.Generator) -> None:
    sure, wide = (expected_coverage(ranks_of(Scaled(LINEAR, factor), rng)) for factor in (0.7, 1.4))
    assert np.mean(sure.covered - sure.levels) < -0.1 and np.mean(wide.covered - wide.levels) > 0.1
    assert not sure.inside and not wide.inside


def test_the_prior_passes_by_its_parameters_and_not_by_the_joint_density(rng: np.random.Generator) -> None:
    found = rank_histograms(ranks_of(Prior(), rng))
    assert (found.p_values[:3] > 1e-3).all() and found.p_values[3] < 1e-10


def test_coverage_of_the_exact_posterior_is_that_of_chi_squared(rng: np.random.Generator) -> None:
    theta, y = LINEAR.draw(3000, rng)
    found = expected_coverage(simulation_ranks(Scaled(LINEAR), theta, y, draws=99))
    away = np.linalg.solve(np.linalg.cholesky(LINEAR.covariance()), (theta - LINEAR.centre(y)).T)
    exact = [np.mean(stats.chi2(2).cdf((away**2).sum(0)) <= level) for level in found.levels]
    assert np.abs(found.covered - exact).max() < 0.02


def test_an_amortised_posterior_of_a_linear_model_passes(rng: np.random.Generator) -> None:
    theta, y = LINEAR.draw(300, rng)
    ranks = simulation_ranks(linear_fit().posterior, theta, y, draws=49, names=["a", "b"])
    assert ranks.names[:2] == ("a", "b")
    assert rank_histograms(ranks, bins=10).p_value > 0.01
    again = simulation_ranks(linear_fit().posterior, torch.from_numpy(theta), torch.from_numpy(y), draws=49)
    np.testing.assert_array_equal(again.ranks, ranks.ranks)


def test_joint_bands_and_p_values_have_their_level() -> None:
    rng = np.random.default_rng(0)
    outside, small, coverage = 0, 0, 0
    for _ in range(50):
        ranks = Ranks(rng.integers(0, 20, (200, 3)), 19, ("a", "b", "log density"))
        found = rank_histograms(ranks, bins=10, level=0.8)
        outside, small = outside + (not found.inside), small + (found.p_value < 0.2)
        coverage += not expected_coverage(ranks, level=0.8).inside
    for times in (outside, coverage):
        assert stats.binomtest(times, 50, 0.2).pvalue > 1e-3
    assert small < 20  # Bonferroni is an upper bound


def test_bins_of_unlike_width_are_weighed() -> None:
    found = rank_histograms(Ranks(np.repeat(np.arange(11), 30)[:, None], 10, ("a",)), bins=4)
    widths = np.diff(found.edges)
    assert set(widths) == {2, 3} and found.counts[0].tolist() == (30 * widths).tolist()
    assert found.p_value == 1.0 and found.inside


def test_c2st_of_one_law_is_chance_and_of_two_what_bayes_gets(rng: np.random.Generator) -> None:
    x = rng.normal(size=(1000, 2))
    same = c2st(x, rng.normal(size=(1000, 2)))
    assert abs(same.accuracy - 0.5) < 4 * same.standard_error
    apart = c2st(x, rng.normal(size=(1000, 2)) + np.array([1.0, 0.0]))
    assert apart.accuracy == pytest.approx(stats.norm.cdf(0.5), abs=5 * apart.standard_error)
    linear = c2st(x, x * 2, classifier=LogisticRegression())  # a straight line does not see a width
    assert abs(linear.accuracy - 0.5) < 4 * linear.standard_error


def test_held_out_nll_is_the_conditional_entropy(rng: np.random.Generator) -> None:
    found = held_out_nll(Scaled(LINEAR), *LINEAR.draw(4000, rng))
    entropy = stats.multivariate_normal(np.zeros(2), LINEAR.covariance()).entropy()
    assert abs(found.nll - entropy) < 4 * found.standard_error
    assert found.values.shape == (4000,) and found.nll == found.values.mean()


BAD = {
    "rows": (lambda: simulation_ranks(Prior(), np.zeros((3, 2)), np.zeros((4, 3))), "a row of y for every row"),
    "draws": (lambda: simulation_ranks(Prior(), np.zeros((3, 2)), np.zeros((3, 3)), draws=0), "draws >= 1"),
    "names": (lambda: simulation_ranks(Prior(), np.zeros((3, 2)), np.zeros((3, 3)), names=["a"]), "expected 2 names"),
    "NaN": (lambda: held_out_nll(Prior(), [[np.nan, 0.0]] * 3, np.zeros((3, 3))), "NaN"),
    "one pair": (lambda: held_out_nll(Prior(), np.zeros((1, 2)), np.zeros((1, 3))), "two pairs"),
    "bins": (lambda: rank_histograms(Ranks(np.zeros((9, 1), int), 4, ("a",)), bins=6), "1 < bins <= 5"),
    "level": (lambda: rank_histograms(Ranks(np.zeros((9, 1), int), 4, ("a",)), bins=5, level=1.0), "level < 1"),
    "density": (lambda: expected_coverage(Ranks(np.zeros((9, 1), int), 4, ("a",))), "expected ranks of 'log density'"),
    "sizes": (lambda: c2st(np.zeros((9, 2)), np.zeros((8, 2))), "two samples of one size"),
    "columns": (lambda: c2st(np.zeros((9, 2)), np.zeros((9, 3))), "features"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_words(case: str) -> None:
    call, words = BAD[case]
    with pytest.raises((DataError, ValueError), match=words):
        call()
