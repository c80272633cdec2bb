"""LogConcaveDensity: closed-form answers, its normaliser, its draws, options, scikit-learn's contract, files."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from density_fits import (
    FITS,
    Fitted,
    few_draws,
    gaussian_fit,
    gumbel_fit,
    gumbel_points,
    gumbels,
    gumbels_log_prob,
    quick,
)
from flow_fits import Array, Normal
from global_state import changed_since, snapshot
from scipy import stats
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from ot_lift import ConvexPotentialFlow, LogConcaveDensity
from ot_lift.densities_sampling import TOTAL_VARIATION
from ot_lift.errors import ConvergenceWarning, DataError, NotFittedError


@pytest.fixture(params=FITS)
def fit(request: pytest.FixtureRequest) -> Fitted:
    return FITS[request.param]()


# ------------------------------------------------------------------------------------------------ oracles
@pytest.mark.parametrize("features", [1, 2, 5])
def test_of_a_gaussian_the_log_likelihood_is_found_and_the_start_is_kept(
    features: int, rng: np.random.Generator
) -> None:
    truth = Normal.random(features, rng, condition=1e4)
    with few_draws():
        density = quick(batch_size=256).fit(truth.draw(6000, rng))
    fresh = truth.draw(2000, rng)
    assert not density.used_network_
    assert density.log_normalizer_standard_error_ == 0
    assert abs(np.mean(density.log_prob(fresh) - truth.log_prob(fresh))) < 0.01 * features


def test_a_start_that_is_kept_is_the_gaussian_of_all_points(rng: np.random.Generator) -> None:
    X = Normal.random(2, rng, condition=1e4).draw(60, rng)
    with few_draws():
        density = quick(hidden_features=(4,), max_steps=2).fit(X)
    assert not density.used_network_
    gaussian = stats.multivariate_normal(X.mean(0), np.cov(X.T, bias=True))
    np.testing.assert_allclose(density.log_prob(X), gaussian.logpdf(X), rtol=1e-9)
    drawn = density.sample(20_000, random_state=0)
    assert (abs(drawn.mean(0) - X.mean(0)) < 5 * X.std(0) / 20_000**0.5).all()


@pytest.mark.parametrize("features", [1, 3])
def test_a_network_on_a_gaussian_stays_within_a_hundredth_of_a_nat_a_dimension(
    features: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ot_lift.estimators._CONFIDENCE", 0.001)  # whatever unseen points say
    truth = Normal.random(features, rng, condition=1e4)
    with few_draws():
        density = quick(hidden_features=(16, 16), max_steps=150, batch_size=256).fit(truth.draw(6000, rng))
    fresh = truth.draw(4000, rng)
    assert density.used_network_
    assert abs(np.mean(density.log_prob(fresh) - truth.log_prob(fresh))) < 0.01 * features


@pytest.mark.parametrize("features", [1, 2, 3])
def test_gumbel_columns_are_learnt_to_a_hundredth_of_a_nat_a_dimension(features: int, rng: np.random.Generator) -> None:
    fit, fresh = gumbel_fit(features), gumbels(20_000, features, rng)
    gaussian = stats.multivariate_normal(fit.X.mean(0), np.cov(fit.X.T)).logpdf(fresh).mean()
    loss = gumbels_log_prob(fresh).mean() - fit.density.score(fresh)
    assert -0.003 < loss < 0.015 * features
    assert loss < 0.2 * (gumbels_log_prob(fresh).mean() - gaussian)


def test_a_gumbel_density_is_near_in_total_variation() -> None:
    grid = np.linspace(-5, 30, 40_001)
    density = np.exp(gumbel_fit(1).density.log_prob(grid[:, None]))
    assert np.trapezoid(density, grid) == pytest.approx(1.0, abs=1e-6)
    assert 0.5 * np.trapezoid(abs(density - stats.gumbel_r.pdf(grid)), grid) < 0.04


def test_in_the_plane_the_density_has_a_total_of_one() -> None:
    side = np.linspace(-110, 420, 1501), np.linspace(-110, 420, 1501)
    grid = np.stack(np.meshgrid(*side, indexing="ij"), -1).reshape(-1, 2)
    mass = np.exp(gumbel_fit(2).density.log_prob(grid)).sum() * (side[0][1] - side[0][0]) ** 2
    assert mass == pytest.approx(1.0, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("features", [2, 21])
def test_by_default_gaussians_end_within_a_hundredth_of_a_nat_a_dimension(
    features: int, rng: np.random.Generator
) -> None:
    truth = Normal.random(features, rng, condition=1e4)
    density = LogConcaveDensity(random_state=0, max_steps=150).fit(truth.draw(50_000, rng))
    fresh = truth.draw(20_000, rng)
    assert abs(np.mean(density.log_prob(fresh) - truth.log_prob(fresh))) < 0.01 * features


# --------------------------------------------------------------------------------------------- normaliser
def test_log_prob_is_minus_the_energy_minus_the_normaliser(fit: Fitted) -> None:
    density = fit.density
    np.testing.assert_allclose(density.log_prob(fit.X), -density.energy(fit.X) - density.log_normalizer_)
    np.testing.assert_allclose(density.energy(fit.X), density.energy_(torch.from_numpy(fit.X)).detach(), atol=1e-9)
    assert density.normalizer_.log_value == density.log_normalizer_
    assert density.normalizer_.standard_error == density.log_normalizer_standard_error_


def test_the_normaliser_says_how_it_was_found_and_how_well_it_is_known() -> None:
    methods = {name: FITS[name]().density.normalizer_ for name in FITS}
    assert methods["start kept"].method == "closed form"
    for name in ("one column", "two columns"):
        assert methods[name].method == "quadrature" and methods[name].bias == 0
        assert methods[name].standard_error < 1e-5
    drawn = methods["three columns"]
    assert drawn.method == "importance sampling"
    assert drawn.effective_sample_size is not None
    assert 0.5 * drawn.points < drawn.effective_sample_size <= drawn.points
    assert 0 < drawn.standard_error < 0.01
    assert drawn.bias == -0.5 * drawn.standard_error**2


def test_importance_sampling_and_quadrature_agree_within_their_errors() -> None:
    density = gumbel_fit(3).density
    # ∫exp(−E) once more by a product grid in whitened coordinates, float64.
    side = torch.linspace(-5, 10, 61, dtype=torch.float64)
    with torch.no_grad():
        values = torch.cat(
            [density.energy_.inner(block) for block in torch.cartesian_prod(side, side, side).split(50_000)]
        )
    step = 3 * np.log(15 / 60)
    log_volume = float(torch.linalg.slogdet(density.energy_.coordinates.matrix).logabsdet)
    exact = float(torch.logsumexp(-values, 0)) + step - log_volume
    assert abs(density.log_normalizer_ - exact) < 4 * density.log_normalizer_standard_error_ + 1e-4


def test_chains_that_end_too_soon_are_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ot_lift.densities_sampling.MOST_STEPS", 1)
    with (
        few_draws(),
        pytest.warns(ConvergenceWarning, match="off the density by .* longest chains of 1 steps") as caught,
    ):
        density = quick(hidden_features=(16, 16), max_steps=60, batch_size=256).fit(gumbel_points(3))
    assert caught[0].filename == __file__
    assert density.sampling_bound_ > TOTAL_VARIATION >= gumbel_fit(3).density.sampling_bound_ > 0


def test_few_effective_draws_are_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ot_lift.densities._FEW_EFFECTIVE", 1e9)
    with few_draws(), pytest.warns(ConvergenceWarning, match=r"rests on \d+ effective draws .*more steps") as caught:
        quick(hidden_features=(16, 16), max_steps=60, batch_size=256).fit(gumbel_points(3))
    assert caught[0].filename == __file__


def test_the_held_out_figure_is_of_unseen_points_and_comes_with_its_error(rng: np.random.Generator) -> None:
    for features in (1, 2, 3):
        density = gumbel_fit(features).density
        fresh = density.score(gumbels(20_000, features, rng))
        assert abs(density.held_out_log_likelihood_ - fresh) < 4 * density.held_out_standard_error_


# ------------------------------------------------------------------------------------------------- draws
def test_draws_are_of_the_density_that_was_fitted(fit: Fitted) -> None:
    density, count = fit.density, 4000
    drawn = density.sample(count, random_state=0)
    assert drawn.shape == (count, fit.X.shape[1]) and drawn.dtype == np.float64
    np.testing.assert_array_equal(drawn, density.sample(count, random_state=0))
    assert not np.array_equal(density.sample(3), density.sample(3))
    # E over the draws of ∇E vanishes and of x·∇E is d, by integration by parts.
    x = torch.from_numpy(drawn)
    units = density.energy_.coordinates
    slope = density.energy_.gradient(x).detach() @ units.inverse
    error = slope.std(0) / count**0.5
    assert (slope.mean(0).abs() < 4 * error).all()
    radial = (slope * units.source(x)).sum(1)
    assert abs(float(radial.mean()) - x.shape[1]) < 4 * float(radial.std()) / count**0.5


@pytest.mark.parametrize("features", [1, 2, 3])
def test_draws_have_the_marginals_of_the_truth(features: int) -> None:
    drawn = gumbel_fit(features).density.sample(2000, random_state=1)
    back = drawn if features == 1 else np.c_[drawn[:, :2] @ np.array([[1, 1], [-1, 1]]) / np.sqrt(2), drawn[:, 2:]]
    for column, scale in zip(back.T, 10.0 ** np.arange(features), strict=True):
        assert stats.kstest(column / scale, stats.gumbel_r.cdf).statistic < 0.06


@pytest.mark.parametrize("n", [0, 2.5])
def test_a_number_of_samples_that_is_none_is_refused(n: Any) -> None:
    with pytest.raises(ValueError, match="expected n to be a whole number > 0"):
        gaussian_fit().density.sample(n)


# ------------------------------------------------------------------------------------------------- options
@parametrize_with_checks(
    [LogConcaveDensity(hidden_features=(4,), max_steps=2, batch_size=16, random_state=0)],
)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_contract_is_kept(estimator: BaseEstimator, check: Callable[[BaseEstimator], None]) -> None:
    state = np.random.get_state()  # some checks draw from it
    try:
        with few_draws():
            check(estimator)
    finally:
        np.random.set_state(state)


def test_every_parameter_is_described_and_cloned() -> None:
    for name in LogConcaveDensity().get_params():
        assert f"        {name}: " in (LogConcaveDensity.__doc__ or ""), name
    density = quick(proposal=ConvexPotentialFlow(max_steps=7))
    assert clone(density).proposal.max_steps == 7
    assert density.set_params(proposal__max_steps=9).proposal.max_steps == 9


def test_pipelines_and_grid_search_work(rng: np.random.Generator) -> None:
    X = gumbels(600, 1, rng)
    pipeline = make_pipeline(StandardScaler(), quick()).fit(X)
    assert pipeline.score(X) == pytest.approx(pipeline.score_samples(X).mean())
    assert GridSearchCV(quick(), {"max_steps": [1, 5]}, cv=2).fit(X).best_params_["max_steps"] in (1, 5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("positivity", ["lift", "softplus", "square", "projection", "admm"])
def test_every_positivity_lowers_the_held_out_value_of_a_convex_energy(positivity: str, dtype: str) -> None:
    options = {"hidden_features": (16, 16), "max_steps": 100, "batch_size": 256}
    density = quick(positivity=positivity, dtype=dtype, **options).fit(gumbel_points(1))
    assert density.used_network_
    assert density.history_[-1]["held_out"] < density.history_[0]["held_out"] - 0.01
    grid = torch.linspace(-5, 20, 200, dtype=torch.float64)[:, None]
    assert bool((density.energy_.hessian(grid) > 0).all())


def test_a_proposal_of_ones_own_is_used_and_left_as_it_was() -> None:
    flow = ConvexPotentialFlow(hidden_features=(4,), max_steps=3, batch_size=32)
    with few_draws():
        quick(proposal=flow).fit(gumbel_points(3))
    assert not hasattr(flow, "map_") and flow.random_state is None


def test_the_same_seed_gives_the_same_density_and_the_process_is_left_alone() -> None:
    before = snapshot()
    for features in (1, 3):
        X = gumbel_points(features)
        again = quick(hidden_features=(16, 16), max_steps=150 * (2 if features > 2 else 1), batch_size=256).fit(X)
        np.testing.assert_array_equal(again.log_prob(X), gumbel_fit(features).density.log_prob(X))
    assert changed_since(before) == []


def test_callbacks_see_records_and_an_energy_to_keep_and_can_end_training() -> None:
    seen: list[Any] = []

    def callback(record: dict[str, float], energy: Any) -> bool:
        seen.append((record["held_out"], energy(torch.zeros(1, 1).double()).item()))
        return len(seen) == 2

    density = quick(max_steps=10_000, callbacks=[callback]).fit(gumbel_points(1))
    assert density.stop_reason_ == "callback" and seen[0] != seen[1]


def test_weights_tilt_the_density(rng: np.random.Generator) -> None:
    X = rng.normal(size=(20_000, 1))
    density = quick(batch_size=256).fit(X, sample_weight=np.exp(X[:, 0]))  # of N(0, 1), e^x makes N(1, 1)
    fresh = rng.normal(1.0, 1.0, size=(4000, 1))
    assert abs(np.mean(density.log_prob(fresh) - Normal(np.ones(1), np.eye(1)).log_prob(fresh))) < 0.02


AWKWARD: dict[str, Callable[[Array], Array]] = {
    "huge": lambda x: 1e12 * x,
    "tiny": lambda x: 1e-12 * x,
    "far away": lambda x: 1e6 + x,
    "columns of unlike size": lambda x: x * [1e4, 1e-4, 1.0],
    "one column": lambda x: x[:, :1],
    "a constant column": lambda x: np.c_[x, 0 * x[:, 0] + 7],
    "a duplicated column": lambda x: np.c_[x, x[:, 0]],
    "a dozen rows": lambda x: x[:12],
    "all the same": lambda x: 0 * x + 5,
    "all zero in one column": lambda x: 0 * x[:, :1],
}


@pytest.mark.parametrize("case", AWKWARD)
def test_awkward_data_is_fitted(case: str) -> None:
    X = AWKWARD[case](np.random.default_rng(0).normal(size=(400, 3)))
    with few_draws():
        density = quick().fit(X)
    assert np.isfinite(density.log_prob(X)).all()
    unit = np.ptp(X, axis=0).max() or np.abs(X).max() or 1.0
    np.testing.assert_allclose(density.sample(300, random_state=0).mean(0) / unit, X.mean(0) / unit, rtol=0, atol=0.3)


# ---------------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("bad", "got"),
    [
        ([[0.0, 1.0], [np.nan, 0.0]], "got NaN in row 1, column 0"),
        (np.zeros(5), r"got \(5,\)"),
        (np.full((5, 2), "a"), "got dtype <U1: encode"),
        (np.empty((0, 2)), "got 0 sample"),
    ],
)
def test_bad_points_are_refused_in_words(bad: Any, got: str) -> None:
    for call in (quick().fit, gaussian_fit().density.log_prob, gaussian_fit().density.energy):
        with pytest.raises(DataError, match=rf"(?s)^expected X .*{got}"):
            call(bad)
    with pytest.raises(DataError, match=r"expected X of shape \(n, 2\), got \(5, 3\)"):
        gaussian_fit().density.log_prob(np.zeros((5, 3)))


def test_bad_parameters_and_unfitted_use_are_refused_in_words(tmp_path: Path) -> None:
    for parameter, value in (("max_steps", 0), ("learning_rate", 0), ("strong_convexity", 2.0), ("dtype", "int8")):
        with pytest.raises(ValueError, match=f"{parameter}"):
            quick(**{parameter: value}).fit(gaussian_fit().X)
    for call in (quick().log_prob, quick().score, quick().energy, quick().save):
        with pytest.raises(NotFittedError, match=r"this LogConcaveDensity is not fitted yet: call fit\(X\) first"):
            call(tmp_path)
    with pytest.raises(NotFittedError):
        quick().sample()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_and_tensors_come_back_in_kind(dtype: Any, fit: Fitted) -> None:
    points = fit.X[:7].astype(dtype)
    array, tensor = fit.density.log_prob(points), fit.density.log_prob(torch.from_numpy(points))
    assert array.dtype == dtype and tensor.dtype == torch.from_numpy(points).dtype
    np.testing.assert_array_equal(array, tensor.numpy())


def test_training_that_diverges_keeps_the_best_state_and_says_so() -> None:
    with pytest.warns(ConvergenceWarning, match="diverged.*lower learning_rate"):
        density = quick(learning_rate=1e30, max_steps=400).fit(gumbel_points(1))
    assert density.stop_reason_ == "diverged"
    assert np.isfinite(density.score(gumbel_points(1)))


def interrupt(*arguments: Any) -> None:
    """What Ctrl-C does: a SIGINT to this process, also where a shell started it with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("where", ["ot_lift.flows.MaximumLikelihood.loss", "ot_lift.densities.EnergyLikelihood.loss"])
def test_ctrl_c_ends_the_whole_fit_with_the_best_state_so_far(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    X = gumbel_points(3)
    monkeypatch.setattr(where, interrupt)
    with few_draws(), pytest.warns(ConvergenceWarning, match="interrupted; the best state so far is kept"):
        density = quick().fit(X)
    assert density.stop_reason_ == "interrupted"
    assert np.isfinite(density.score(X))
