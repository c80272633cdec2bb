"""AmortizedPosterior: closed-form posteriors, laws, kinds of arrays, awkward data, files and resumed fits."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from amortized_fits import FITS, LINEAR, Fitted, Linear, curved, curved_fit, curved_log_prob, linear_fit, quick
from sklearn.base import clone

from ot_lift import AmortizedPosterior, ConvexPotentialFlow
from ot_lift.amortized_map import ConditionalMap
from ot_lift.errors import ConvergenceWarning, DataError, ExtrapolationWarning, NotFittedError
from ot_lift.training import TrainingOptions

Array = npt.NDArray[np.float64]


@pytest.fixture(params=FITS)
def fit(request: pytest.FixtureRequest) -> Fitted:
    return FITS[request.param]()


# ------------------------------------------------------------------------------------------------ oracles
@pytest.mark.parametrize("features", [1, 2, 6])
def test_of_a_linear_model_the_posterior_is_found_and_the_start_is_kept(
    features: int, rng: np.random.Generator
) -> None:
    model = Linear(rng.normal(size=(features + 1, features)), 0.3)
    posterior = quick().fit(*model.draw(8000, rng))
    theta, y = model.draw(4000, rng)
    assert not posterior.used_network_
    assert abs(np.mean(posterior.log_prob(theta, y) - model.log_prob(theta, y))) < 0.01 * features
    draws = posterior.sample(y[0], 20_000, random_state=0)
    np.testing.assert_allclose(draws.mean(0), model.centre(y[:1])[0], rtol=0, atol=0.05)
    np.testing.assert_allclose(np.cov(draws.T), model.covariance().squeeze(), rtol=0.1, atol=0.02)


def test_a_curved_posterior_is_learnt_far_beyond_the_gaussian_conditional(rng: np.random.Generator) -> None:
    theta, y = curved(4000, rng)
    truth, posterior = curved_log_prob(theta, y).mean(), curved_fit().posterior
    assert truth - posterior.score(theta, y) < 0.1
    assert posterior.held_out_log_likelihood_ - posterior.gaussian_log_likelihood_ > 1
    assert abs(posterior.held_out_log_likelihood_ - truth) < 0.1 + 4 * posterior.held_out_standard_error_


def test_draws_follow_the_density(rng: np.random.Generator) -> None:
    posterior, y = curved_fit().posterior, np.array([0.7])
    draws = posterior.sample(y, 20_000, random_state=1)
    # Of the density itself: E over its draws of any other density over it is 1.
    other = np.exp(curved_log_prob(draws, np.tile(y, (len(draws), 1))) - posterior.log_prob(draws, y))
    assert abs(other.mean() - 1) < 4 * other.std() / len(draws) ** 0.5 + 0.01


def test_in_one_dimension_every_conditional_has_a_total_of_one(rng: np.random.Generator) -> None:
    y = rng.normal(size=(3000, 1))
    posterior = quick(max_steps=150, batch_size=256).fit(y**2 + rng.gumbel(size=(3000, 1)), y)
    grid = np.linspace(-15, 40, 20_001)[:, None]
    assert posterior.used_network_
    for at in (-1.5, 0.0, 2.0):
        total = np.trapezoid(np.exp(posterior.log_prob(grid, [at])), grid[:, 0])
        assert total == pytest.approx(1.0, abs=1e-5)


# --------------------------------------------------------------------------------------------------- laws
def test_invert_undoes_transport(fit: Fitted) -> None:
    theta, y = fit.theta[:300], fit.y[:300]
    latent = fit.posterior.transport(theta, y)
    np.testing.assert_allclose(fit.posterior.invert(latent, y), theta, rtol=0, atol=1e-6)
    one = fit.posterior.transport(theta, y[3])
    np.testing.assert_allclose(fit.posterior.invert(one, y[3]), theta, rtol=0, atol=1e-6)


def test_one_observation_is_many_that_are_equal(fit: Fitted) -> None:
    theta, y = fit.theta[:50], np.tile(fit.y[3], (50, 1))
    for method in ("transport", "log_prob", "invert"):
        one, many = (getattr(fit.posterior, method)(theta, at) for at in (fit.y[3], y))
        np.testing.assert_allclose(one, many, rtol=0, atol=1e-8)


def test_answers_do_not_depend_on_the_other_rows_or_on_blocks(fit: Fitted, monkeypatch: pytest.MonkeyPatch) -> None:
    theta, y = fit.theta[:40], fit.y[:40]
    whole = fit.posterior.log_prob(theta, y), fit.posterior.sample(y, 3, random_state=0)
    np.testing.assert_allclose(fit.posterior.log_prob(theta[7:9], y[7:9]), whole[0][7:9], rtol=0, atol=1e-10)
    monkeypatch.setattr("ot_lift.amortized_map.block_rows", lambda features: 7)
    blocks = fit.posterior.log_prob(theta, y), fit.posterior.sample(y, 3, random_state=0)
    for one, other in zip(whole, blocks, strict=True):
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-8)


def test_the_latent_of_fresh_pairs_is_standard_normal(rng: np.random.Generator) -> None:
    latent = curved_fit().posterior.transport(*curved(4000, rng))
    np.testing.assert_allclose(latent.mean(0), 0, rtol=0, atol=0.1)
    np.testing.assert_allclose(np.cov(latent.T), np.eye(2), rtol=0, atol=0.15)


def test_log_prob_differentiates_as_the_change_of_variables_says(fit: Fitted) -> None:
    theta, y, step = fit.theta[:5], fit.y[:5], 1e-5
    columns = []
    for k in range(2):
        away = step * np.eye(2)[k]
        ends = (fit.posterior.transport(theta + sign * away, y) for sign in (1, -1))
        columns.append(np.subtract(*ends) / (2 * step))
    log_det = np.linalg.slogdet(np.stack(columns, 2))[1]
    latent = fit.posterior.transport(theta, y)
    expected = log_det - 0.5 * (latent**2).sum(1) - np.log(2 * np.pi)
    np.testing.assert_allclose(fit.posterior.log_prob(theta, y), expected, rtol=0, atol=1e-5)


# ---------------------------------------------------------------------------------------------- shapes and kinds
def test_shapes_of_draws(fit: Fitted) -> None:
    sample = partial(fit.posterior.sample, random_state=0)
    assert sample(fit.y[0]).shape == (1, 2)
    assert sample(fit.y[0], 7).shape == sample(fit.y[0].tolist(), 7).shape == (7, 2)
    assert sample(fit.y[:4], 7).shape == (4, 7, 2)
    np.testing.assert_array_equal(sample(fit.y[0], 7), sample(fit.y[0], 7))
    assert not np.array_equal(sample(fit.y[0], 7), fit.posterior.sample(fit.y[0], 7, random_state=1))


def test_torch_comes_back_as_torch(fit: Fitted) -> None:
    theta, y = torch.from_numpy(fit.theta[:6]).float(), torch.from_numpy(fit.y[:6]).float()
    for answer in (fit.posterior.log_prob(theta, y), fit.posterior.transport(theta, y), fit.posterior.sample(y, 2)):
        assert isinstance(answer, torch.Tensor) and answer.dtype == torch.float32
    assert fit.posterior.sample(y[0], 2).shape == (2, 2)


SAME: dict[str, Callable[[Array], Any]] = {
    "list": lambda x: x.tolist(),
    "objects": lambda x: x.astype(object),
    "frame": lambda x: pd.DataFrame(x, columns=[f"column {k}" for k in range(x.shape[1])]),
    "tensor": torch.from_numpy,
}


@pytest.mark.parametrize("kind", SAME)
def test_every_kind_of_array_gives_the_same_posterior(kind: str) -> None:
    fit = linear_fit()
    posterior = quick().fit(SAME[kind](fit.theta), SAME[kind](fit.y))
    np.testing.assert_array_equal(posterior.log_prob(fit.theta, fit.y), fit.posterior.log_prob(fit.theta, fit.y))


def simulator(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """An endless stream of pairs: given y, θ is N(y/2, 1/2)."""
    theta = torch.randn(count, 1, generator=generator, dtype=torch.float64)
    return theta, theta + torch.randn(count, 1, generator=generator, dtype=torch.float64)


def test_a_simulator_gives_fresh_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ot_lift.sides.HELD_OUT_ROWS", 300)
    monkeypatch.setattr("ot_lift.sides._MOMENT_ROWS", 8192)
    posterior = quick().fit(simulator)
    assert posterior.log_prob([[1.0]], [2.0]).item() == pytest.approx(-0.5 * np.log(np.pi), abs=0.05)
    with pytest.warns(ExtrapolationWarning):
        posterior.sample([100.0])


def test_settings_are_scikit_learns() -> None:
    posterior = clone(quick(sharpness=3.0))
    assert posterior.get_params()["sharpness"] == 3.0
    assert posterior.set_params(max_steps=5).max_steps == 5


def test_callbacks_get_a_map_they_may_keep_and_can_end_training() -> None:
    fit, kept = curved_fit(), []

    def keep(record: dict[str, float], map_: ConditionalMap) -> bool:
        kept.append(map_)
        return len(kept) == 2

    posterior = quick(max_steps=200, callbacks=[keep]).fit(fit.theta, fit.y)
    assert posterior.stop_reason_ == "callback" and posterior.history_[-1]["step"] == 100
    theta, y = (torch.from_numpy(part[:3]) for part in (fit.theta, fit.y))
    first, second = (map_.image_and_log_det(theta, y, torch.arange(3))[0] for map_ in kept)
    assert not torch.equal(first, second)


# ------------------------------------------------------------------------------------------------- awkward data
AWKWARD: dict[str, Callable[[Array, Array], tuple[Array, Array]]] = {
    "huge parameters": lambda theta, y: (1e12 * theta, y),
    "tiny observations": lambda theta, y: (theta, 1e-12 * y),
    "far away": lambda theta, y: (1e6 + theta, y - 1e6),
    "columns of unlike size": lambda theta, y: (theta * [1e4, 1e-4], y),
    "one column each": lambda theta, y: (theta[:, :1], y[:, :1]),
    "a constant parameter": lambda theta, y: (np.c_[theta, 0 * theta[:, 0] + 7], y),
    "a constant observation": lambda theta, y: (theta, np.c_[y, 0 * y[:, 0] + 7]),
    "a duplicated observation": lambda theta, y: (theta, np.c_[y, y]),
    "parameters that the observation determines": lambda theta, y: (theta, theta[:, ::-1]),
    "more columns than rows": lambda theta, y: (theta[:12], np.tile(y[:12], 8)),
    "a dozen rows": lambda theta, y: (theta[:12], y[:12]),
    "observations that say nothing": lambda theta, y: (theta, y[::-1]),
    "all the same": lambda theta, y: (0 * theta + 5, 0 * y),
}


@pytest.mark.parametrize("case", AWKWARD)
def test_awkward_data_is_fitted_and_comes_back(case: str) -> None:
    theta, y = AWKWARD[case](*LINEAR.draw(400, np.random.default_rng(0)))
    posterior = quick().fit(theta, y)
    latent = posterior.transport(theta, y)
    assert np.isfinite(latent).all() and np.isfinite(posterior.log_prob(theta, y)).all()
    unit = np.ptp(theta, axis=0).max() or np.abs(theta).max()
    np.testing.assert_allclose(posterior.invert(latent, y), theta, rtol=0, atol=1e-6 * unit)
    drawn = posterior.sample(y[:50], 4, random_state=0)
    np.testing.assert_allclose(drawn.mean((0, 1)) / unit, theta.mean(0) / unit, rtol=0, atol=0.5)


def test_weights_tilt_the_pairs(rng: np.random.Generator) -> None:
    theta = rng.normal(size=(20_000, 1))
    y = theta + rng.normal(size=(20_000, 1))
    posterior = quick(batch_size=256).fit(theta, y, sample_weight=np.exp(theta[:, 0]))  # a prior N(1, 1)
    assert posterior.sample([3.0], 20_000, random_state=0).mean() == pytest.approx(2.0, abs=0.05)


def test_units_change_the_log_density_by_their_log_volume() -> None:
    theta, y = curved(1500, np.random.default_rng(0))
    plain = quick(max_steps=60).fit(theta, y)
    scaled = quick(max_steps=60).fit(2.0**20 * theta, 2.0**-20 * y)
    found = scaled.log_prob(2.0**20 * theta, 2.0**-20 * y) + 40 * np.log(2)
    np.testing.assert_allclose(found, plain.log_prob(theta, y), rtol=0, atol=1e-4)


# ------------------------------------------------------------------------------------------------- bad input
BAD: dict[str, tuple[Callable[[Array, Array], Any], str]] = {
    "fewer y": (lambda theta, y: quick().fit(theta, y[:-1]), "a row of y for every row of theta, got 4000 of theta"),
    "NaN": (lambda theta, y: quick().fit(theta, np.nan * y), "y contains NaN"),
    "one-dimensional": (lambda theta, y: quick().fit(theta[:, 0], y), "expected theta of shape"),
    "five rows": (lambda theta, y: quick().fit(theta[:5], y[:5]), "at least 6 rows"),
    "strings": (lambda theta, y: quick().fit(theta, y.astype(str)), "real numbers"),
    "context": (lambda theta, y: linear_fit().posterior.sample(y[0, :2]), "expected y of shape"),
    "rows": (lambda theta, y: linear_fit().posterior.log_prob(theta, y[:9]), r"expected y of shape \(4000, 3\)"),
    "columns": (lambda theta, y: linear_fit().posterior.log_prob(y, y), "expected theta of shape"),
    "a simulator and y": (lambda theta, y: quick().fit(simulator, y), "expected y to be left out with a simulator"),
    "a simulator of one array": (lambda theta, y: quick().fit(lambda n, g: theta[:n]), r"the pair \(theta, y\)"),
    "no y": (lambda theta, y: quick().fit(theta), "expected y"),
    "an infinite observation": (lambda theta, y: linear_fit().posterior.sample([np.inf, 0, 0]), "infinity"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_data_is_refused_in_words(case: str) -> None:
    call, words = BAD[case]
    with pytest.raises(DataError, match=words):
        call(linear_fit().theta, linear_fit().y)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"positivity": "admm"}, "keeps the potential convex at every step"),
        ({"max_steps": 0}, "max_steps"),
        ({"strong_convexity": 1.0}, "strong_convexity"),
        ({"context_hidden_features": (0,)}, "widths to be whole numbers > 0"),
        ({"context_hidden_features": 5}, "context_hidden_features as a tuple"),
    ],
)
def test_bad_settings_are_refused_in_words(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        quick(**options).fit(*LINEAR.draw(50, np.random.default_rng(0)))


def test_a_count_of_draws_is_checked_and_so_is_that_it_is_fitted() -> None:
    with pytest.raises(ValueError, match="expected n to be a whole number > 0, got 0"):
        linear_fit().posterior.sample(linear_fit().y[0], 0)
    for call in (lambda p: p.sample([1.0], 1), lambda p: p.log_prob([[1.0]], [1.0]), lambda p: p.save("x")):
        with pytest.raises(NotFittedError, match="call fit\\(theta, y\\) first"):
            call(quick())


def test_an_observation_unlike_all_simulated_ones_is_said(fit: Fitted) -> None:
    with pytest.warns(ExtrapolationWarning, match="1 of 1 points of y") as caught:
        fit.posterior.sample(1e3 * np.abs(fit.y[0]) + 1e3, 2)
    assert caught[0].filename == __file__
    with pytest.warns(ExtrapolationWarning) as caught:
        fit.posterior.log_prob(fit.theta[:2], 1e3 + np.abs(fit.y[:2]))
    assert caught[0].filename == __file__


def test_training_that_diverges_keeps_the_best_state_and_says_so() -> None:
    fit = curved_fit()
    with pytest.warns(ConvergenceWarning, match="diverged.*lower learning_rate"):
        posterior = quick(learning_rate=1e30, max_steps=400).fit(fit.theta, fit.y)
    assert posterior.stop_reason_ == "diverged" and not posterior.used_network_
    assert np.isfinite(posterior.score(fit.theta, fit.y))


# ------------------------------------------------------------------------------------------------- files
def test_a_loaded_posterior_gives_the_same_bits(fit: Fitted, tmp_path: Path) -> None:
    fit.posterior.save(tmp_path / "posterior")
    loaded = AmortizedPosterior.load(str(tmp_path / "posterior"))
    np.testing.assert_array_equal(loaded.log_prob(fit.theta, fit.y), fit.posterior.log_prob(fit.theta, fit.y))
    at = fit.y[:3]
    np.testing.assert_array_equal(loaded.sample(at, 4, random_state=0), fit.posterior.sample(at, 4, random_state=0))
    for name, value in vars(fit.posterior).items():
        if name.endswith("_") and name != "map_":
            assert str(getattr(loaded, name)) == str(value), name  # NaN are not equal to themselves
    with pytest.warns(ExtrapolationWarning):
        loaded.sample(1e6 + np.abs(fit.y[0]))
    with pytest.raises(DataError, match="saved convex-potential-flow"):
        ConvexPotentialFlow.load(tmp_path / "posterior")


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda posterior: pickle.loads(pickle.dumps(posterior))])
def test_copies_are_the_same_posterior(
    duplicate: Callable[[AmortizedPosterior], AmortizedPosterior], fit: Fitted
) -> None:
    other = duplicate(fit.posterior)
    np.testing.assert_array_equal(other.log_prob(fit.theta, fit.y), fit.posterior.log_prob(fit.theta, fit.y))


class Killed(Exception):
    """A process that ends in mid-fit, as far as the files can tell."""


@pytest.mark.parametrize("case", ["lift", "projection", "a constant parameter", "random probes"])
def test_a_fit_that_broke_off_ends_where_an_unbroken_one_does(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = partial(TrainingOptions, checkpoint_seconds=0.0, evaluate_every=4)
    monkeypatch.setattr("ot_lift.estimators.TrainingOptions", options)
    theta, y = curved(600, np.random.default_rng(0))
    if case == "a constant parameter":
        theta = np.c_[theta, np.ones(600)]
    if case == "random probes":
        theta = theta @ np.random.default_rng(1).normal(size=(2, 13)) + np.random.default_rng(2).normal(size=(600, 13))
    make = partial(quick, max_steps=16, positivity="projection" if case == "projection" else "lift")
    unbroken = make().fit(theta, y, resume=tmp_path / "unbroken")

    def kill(record: dict[str, float], map_: ConditionalMap) -> None:
        if record["step"] == 8:
            raise Killed

    with pytest.raises(Killed):
        make(callbacks=[kill]).fit(theta, y, resume=tmp_path / "broken")
    steps: list[float] = []
    follow = [lambda record, map_: steps.append(record["step"])]
    resumed = make(callbacks=follow).fit(theta, y, resume=tmp_path / "broken")
    assert steps[0] >= 8  # it did go on from a checkpoint
    assert [record["held_out"] for record in resumed.history_] == [record["held_out"] for record in unbroken.history_]
    np.testing.assert_array_equal(resumed.log_prob(theta, y), unbroken.log_prob(theta, y))
