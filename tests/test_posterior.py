"""Posterior maps: known posteriors are recovered, both ways and in both directions; files, draws, errors."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import digamma, polygamma
from scipy.stats import kstest, norm
from sklearn.base import clone
from targets import Density, LinearModel, linear_model, log_gamma

from ot_lift.errors import ConvergenceError, DataError, NotFittedError
from ot_lift.posterior import PosteriorMap

# Maps of a few steps are good enough for what is tested here; tests/test_posterior_trust.py tests the warnings.
pytestmark = pytest.mark.filterwarnings("ignore::ot_lift.posterior_trust.TrustWarning")

DIRECTIONS = ("forward", "inverse")
SMALL = {"hidden_features": (16, 16), "max_steps": 150, "random_state": 0}
MEAN, DEVIATION = digamma(3), math.sqrt(polygamma(1, 3))  # of the log of a Gamma(3, 1) variable


@pytest.fixture(scope="module")
def line() -> LinearModel:
    return linear_model()


@pytest.fixture(scope="module")
def gaussian(line: LinearModel) -> PosteriorMap:
    return PosteriorMap(random_state=0).fit(line)


@pytest.fixture(scope="module", params=DIRECTIONS)
def skewed(request: pytest.FixtureRequest) -> PosteriorMap:
    """A map of the logs of two Gamma variables, in either direction."""
    return PosteriorMap(direction=request.param, **SMALL).fit(log_gamma(2))


# --- a Gaussian posterior: the start is exact, and kept ------------------------------------------------------------


def test_a_gaussian_posterior_is_recovered_without_training(gaussian: PosteriorMap, line: LinearModel) -> None:
    deviation = np.sqrt(np.diag(line.covariance))
    images = gaussian.invert(np.vstack([np.zeros(3), np.eye(3)]))
    assert gaussian.stop_reason_ == "laplace"
    assert not gaussian.used_network_
    np.testing.assert_allclose((images[0] - line.mean) / deviation, 0.0, atol=1e-6)
    root = (images[1:] - images[0]).T / deviation[:, None]
    np.testing.assert_allclose(root @ root.T, line.covariance / np.outer(deviation, deviation), atol=1e-6)


def test_the_evidence_of_a_gaussian_model_is_the_closed_form(gaussian: PosteriorMap, line: LinearModel) -> None:
    assert gaussian.evidence_.elbo == pytest.approx(line.log_evidence, abs=1e-6)
    assert gaussian.evidence_.log_evidence == pytest.approx(line.log_evidence, abs=1e-6)
    assert gaussian.evidence_.elbo_standard_error < 1e-6
    assert gaussian.diagnose().verdict == "good"


def test_moments_of_draws_from_a_gaussian_posterior(gaussian: PosteriorMap, line: LinearModel) -> None:
    draws = (gaussian.sample(20_000, random_state=1) - line.mean) / np.sqrt(np.diag(line.covariance))
    assert np.abs(draws.mean(0)).max() < 4 / math.sqrt(20_000)
    assert np.abs(draws.std(0) - 1).max() < 4 / math.sqrt(2 * 20_000)


# --- a skewed posterior: what the network is for -------------------------------------------------------------------


def test_a_skewed_posterior_is_learned(skewed: PosteriorMap) -> None:
    assert skewed.used_network_
    draws = skewed.sample(20_000, random_state=1)
    assert np.abs(draws.mean(0) - MEAN).max() < 0.05 * DEVIATION
    assert np.abs(draws.std(0) / DEVIATION - 1).max() < 0.05
    z = skewed.transport(np.log(np.random.default_rng(0).gamma(3.0, size=(2000, 2))))
    assert min(kstest(column, norm.cdf).pvalue for column in z.T) > 1e-3


def test_the_elbo_is_below_the_evidence_and_the_estimate_at_it(skewed: PosteriorMap) -> None:
    evidence = skewed.evidence_
    truth = log_gamma(2).log_evidence
    laplace = PosteriorMap(max_steps=1, random_state=0, hidden_features=(2,)).fit(log_gamma(2)).evidence_
    assert laplace.elbo < evidence.elbo < truth + 3 * evidence.elbo_standard_error
    assert abs(evidence.log_evidence - truth) < 4 * evidence.log_evidence_standard_error


def test_transport_undoes_invert(skewed: PosteriorMap) -> None:
    z = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theta = skewed.invert(z)
    assert isinstance(theta, torch.Tensor)
    torch.testing.assert_close(skewed.transport(theta), z, rtol=0, atol=1e-6)
    assert skewed.invert(z.numpy().tolist()).dtype == np.float64


def test_the_density_is_the_change_of_variables(skewed: PosteriorMap) -> None:
    z = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theta, log_q = skewed.map_.push(z)
    np.testing.assert_allclose(skewed.log_prob(theta), log_q, atol=1e-6)
    h = 1e-4
    columns = [(skewed.invert(z + h * e) - skewed.invert(z - h * e)) / (2 * h) for e in torch.eye(2).double()]
    jacobian = torch.stack(columns, 2)
    expected = -0.5 * z.square().sum(1) - math.log(2 * math.pi) - torch.linalg.slogdet(jacobian)[1]
    np.testing.assert_allclose(log_q, expected, atol=1e-4)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_density_integrates_to_one(direction: str) -> None:
    fitted = PosteriorMap(direction=direction, **{**SMALL, "max_steps": 60}).fit(log_gamma(1))
    grid = np.linspace(-12.0, 4.0, 4001)
    assert np.trapezoid(np.exp(fitted.log_prob(grid[:, None])), grid) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("correct", ["importance", "metropolis"])
def test_corrections_take_a_poor_map_to_the_posterior(correct: str) -> None:
    quartic = Density(1, lambda x: (x - x.square() / 2 - x.pow(4) / 4).sum(-1))
    grid = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    density = quartic.log_density(grid[:, None]).exp()
    mean = float((grid * density).sum() / density.sum())
    elsewhere = np.random.default_rng(0).normal(size=(1000, 1))
    poor = PosteriorMap(max_steps=1, hidden_features=(2,), random_state=0).fit_draws(elsewhere, target=quartic)
    assert abs(poor.sample(20_000, random_state=1).mean() - mean) > 0.15
    draws = poor.sample(20_000, correct=correct, random_state=1)
    assert draws.shape == (20_000, 1)
    assert abs(draws.mean() - mean) < 0.02


def test_draws_are_fixed_by_the_random_state(skewed: PosteriorMap) -> None:
    assert np.array_equal(skewed.sample(5, random_state=3), skewed.sample(5, random_state=3))
    assert not np.array_equal(skewed.sample(5), skewed.sample(5))
    again = PosteriorMap(direction=skewed.direction, **SMALL).fit(log_gamma(2))
    assert np.array_equal(again.sample(5, random_state=3), skewed.sample(5, random_state=3))


# --- fitting to draws ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_map_fitted_to_draws(direction: str, rng: np.random.Generator) -> None:
    draws = np.log(rng.gamma(3.0, size=(4000, 2)))
    fitted = PosteriorMap(direction=direction, **SMALL).fit_draws(draws, target=log_gamma(2))
    assert fitted.used_network_
    fresh = np.log(rng.gamma(3.0, size=(4000, 2)))
    ours, truth = fitted.log_prob(fresh), (3 * fresh - np.exp(fresh) - math.log(2)).sum(1)
    gauss = norm.logpdf(fresh, draws.mean(0), draws.std(0)).sum(1)
    assert (truth - ours).mean() < 0.3 * (truth - gauss).mean()
    assert abs(fitted.evidence_.log_evidence - log_gamma(2).log_evidence) < 0.05


def test_a_map_of_draws_alone_has_no_evidence_and_says_that_it_cannot_be_judged(rng: np.random.Generator) -> None:
    fitted = PosteriorMap(max_steps=5, random_state=0).fit_draws(rng.normal(size=(200, 2)))
    assert fitted.evidence_ is None
    assert fitted.diagnose().verdict == "reject"
    assert "without a target" in str(fitted.diagnose())
    assert fitted.sample(3, random_state=0).shape == (3, 2)
    with pytest.raises(DataError, match="expected a target to weigh draws with"):
        fitted.sample(3, correct="importance")


# --- ArviZ ---------------------------------------------------------------------------------------------------------


class Named(Density):
    """A target with sites and a log likelihood, as the bridge makes them."""

    def constrain(self, x: np.ndarray) -> dict[str, np.ndarray]:
        return {"rate": np.exp(x[:, 0]), "pair": x}

    def log_likelihood(self, x: np.ndarray) -> dict[str, np.ndarray]:
        return {"y": norm.logpdf(x[:, :1], loc=np.array([[0.9, 1.0, 1.1]]), scale=2.0)}


def test_arviz_takes_draws_by_site_and_chain(skewed: PosteriorMap, tmp_path: Path) -> None:
    arviz = pytest.importorskip("arviz", reason="needs the extra `posteriors`: pip install 'ot-lift[posteriors]'")
    skewed.save(tmp_path / "map")
    loaded = PosteriorMap.load(tmp_path / "map", target=Named(2, log_gamma(2).log_density))
    data = loaded.to_arviz(400, random_state=0)
    assert data["posterior"]["rate"].shape == (4, 100)
    assert data["posterior"]["pair"].shape == (4, 100, 2)
    table = arviz.summary(data, var_names=["pair"])
    assert list(table.index) == ["pair[0]", "pair[1]"]
    assert (table["r_hat"].astype(float) < 1.05).all()
    loo = arviz.loo(data)
    assert np.isfinite(getattr(loo, "elpd_loo", getattr(loo, "elpd", np.nan)))
    assert skewed.to_arviz(8, chains=2)["posterior"]["theta"].shape == (2, 4, 2)
    with pytest.raises(ValueError, match="multiple of 4 chains, got 10"):
        skewed.to_arviz(10)


# --- files ---------------------------------------------------------------------------------------------------------


def test_a_saved_map_is_the_same_map(skewed: PosteriorMap, tmp_path: Path) -> None:
    skewed.save(tmp_path / "map")
    loaded = PosteriorMap.load(tmp_path / "map", target=log_gamma(2))
    assert {**loaded.get_params(), "hidden_features": (16, 16)} == skewed.get_params()  # JSON has no tuples
    assert np.array_equal(loaded.sample(5, random_state=0), skewed.sample(5, random_state=0))
    assert loaded.evidence_ == skewed.evidence_
    assert loaded.diagnosis_ == skewed.diagnosis_
    assert loaded.diagnose() == skewed.diagnose()
    assert str(loaded.history_) == str(skewed.history_)  # the first loss is NaN
    assert (loaded.used_network_, loaded.n_features_in_) == (True, 2)


def test_a_saved_start_is_the_same_start(gaussian: PosteriorMap, line: LinearModel, tmp_path: Path) -> None:
    gaussian.save(tmp_path / "map")
    loaded = PosteriorMap.load(tmp_path / "map")
    assert not loaded.used_network_
    assert np.array_equal(loaded.log_prob(line.mean[None]), gaussian.log_prob(line.mean[None]))


def test_a_resumed_fit_is_the_unbroken_one(tmp_path: Path) -> None:
    options = {**SMALL, "max_steps": 120}
    whole = PosteriorMap(**options).fit(log_gamma(2))
    PosteriorMap(**options).fit(log_gamma(2), resume=tmp_path / "checkpoint")
    again = PosteriorMap(**options).fit(log_gamma(2), resume=tmp_path / "checkpoint")  # goes on from the last one
    assert np.array_equal(again.sample(5, random_state=0), whole.sample(5, random_state=0))


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"direction": "sideways"}, "direction 'forward' or 'inverse', got 'sideways'"),
        ({"positivity": "admm"}, "keeps the potential convex"),
        ({"dtype": "float16"}, "dtype 'float32' or 'float64'"),
        ({"hidden_features": 64}, "tuple of widths"),
        ({"max_steps": 0}, "max_steps to be a whole number > 0, got 0"),
        ({"learning_rate": 0.0}, "learning_rate > 0"),
        ({"strong_convexity": 1.0}, "0 < strong_convexity < 1"),
        ({"max_seconds": -1.0}, "max_seconds > 0 or None"),
    ],
)
def test_options_out_of_range(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PosteriorMap(**options).fit(log_gamma(1))


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (object(), "target with dim, a whole number > 0, got None"),
        (Density(0, lambda x: x.sum(-1)), "whole number > 0, got 0"),
        (Density(1, None), "target with log_density"),
        (Density(2, lambda x: x), r"tensor of shape \(\d+,\), got shape"),
        (Density(1, lambda x: x.sum(-1).numpy(force=True)), "got ndarray"),
        (Density(2, lambda x: x.sum(-1) * math.nan), "finite, with its gradient.* nan at the origin"),
    ],
)
def test_what_is_no_target(target: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        PosteriorMap(random_state=0).fit(target)


def test_an_improper_posterior_is_named_with_its_direction() -> None:
    flat = Density(2, lambda x: -0.5 * x[:, 0].square() + 0.0 * x[:, 1])
    with pytest.raises(ConvergenceError, match=r"mostly along theta\[1\].*improper there"):
        PosteriorMap(random_state=0).fit(flat)


def test_an_unbounded_log_density_is_said() -> None:
    with pytest.raises(ConvergenceError, match="expected a log density with a maximum"):
        PosteriorMap(random_state=0).fit(Density(1, lambda x: x.square().sum(-1)))


def test_before_the_fit_the_error_says_what_to_call() -> None:
    with pytest.raises(NotFittedError, match="call fit"):
        PosteriorMap().sample(3)
    with pytest.raises(NotFittedError, match="call fit"):
        PosteriorMap().diagnose()


def test_points_and_counts_are_checked(skewed: PosteriorMap) -> None:
    with pytest.raises(DataError, match=r"shape \(n, 2\)"):
        skewed.transport(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="whole number > 0, got 0"):
        skewed.sample(0)
    with pytest.raises(ValueError, match="'importance' or 'metropolis', got 'magic'"):
        skewed.sample(4, correct="magic")
    with pytest.raises(DataError, match="singular covariance"):
        PosteriorMap().fit_draws(np.ones((30, 2)))


def test_it_follows_scikit_learns_conventions() -> None:
    estimator = PosteriorMap(direction="inverse", max_steps=7)
    assert clone(estimator).get_params() == estimator.get_params()
    assert estimator.set_params(max_steps=9).max_steps == 9
