"""Fitting ConvexPotentialFlow: options, kinds of data, weights, scikit-learn's contract, and what goes wrong."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from flow_fits import Array, Normal, bent, bent_fit, bent_points, gaussian_fit, gaussian_points, quick
from global_state import changed_since, snapshot
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from ot_lift import ConvexPotentialFlow
from ot_lift.errors import ConvergenceWarning, DataError
from ot_lift.flows_map import FlowMap


# --------------------------------------------------------------------------------------------- scikit-learn
@parametrize_with_checks(
    [ConvexPotentialFlow(hidden_features=(4,), max_steps=2, batch_size=16, random_state=0)],
    expected_failed_checks=lambda estimator: {
        "check_sample_weight_equivalence_on_dense_data": "mini-batches of repeated rows are others than weighted ones"
    },
)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_contract_is_kept(estimator: BaseEstimator, check: Callable[[BaseEstimator], None]) -> None:
    state = np.random.get_state()  # some checks draw from it
    try:
        check(estimator)
    finally:
        np.random.set_state(state)


def test_parameters_are_read_set_and_cloned() -> None:
    flow = quick(blocks=3, direction="forward")
    assert flow.get_params()["blocks"] == 3
    assert clone(flow).get_params() == flow.get_params()
    assert flow.set_params(blocks=1).blocks == 1


def test_every_parameter_is_described() -> None:
    for name in ConvexPotentialFlow().get_params():
        assert f"        {name}: " in (ConvexPotentialFlow.__doc__ or ""), name


def test_a_pipeline_scores_transforms_and_inverts(rng: np.random.Generator) -> None:
    X = bent(400, rng)
    pipeline = make_pipeline(StandardScaler(), quick()).fit(X)
    np.testing.assert_allclose(pipeline.inverse_transform(pipeline.transform(X)), X, atol=1e-6 * np.ptp(X))
    assert pipeline.score(X) == pytest.approx(pipeline.score_samples(X).mean())


def test_cross_validation_and_grid_search_prefer_the_better_density(rng: np.random.Generator) -> None:
    X = bent(900, rng)
    scores = cross_val_score(quick(), X, cv=2)
    assert scores.shape == (2,) and np.isfinite(scores).all()
    search = GridSearchCV(quick(batch_size=256, hidden_features=(16, 16)), {"max_steps": [1, 120]}, cv=2).fit(X)
    assert search.best_params_ == {"max_steps": 120}


# ------------------------------------------------------------------------------------------------- options
@pytest.mark.parametrize(
    ("parameter", "value", "words"),
    [
        ("max_steps", 0, "expected max_steps to be a whole number > 0, got 0"),
        ("batch_size", 2.5, "expected batch_size to be a whole number > 0, got 2.5"),
        ("blocks", 0, "expected blocks to be a whole number > 0, got 0"),
        ("direction", "backward", "expected direction 'inverse' or 'forward', got 'backward'"),
        ("positivity", "admm", "density no total of 1; use 'lift', 'softplus' or 'projection'"),
        ("positivity", "exp", "expected positivity"),
        ("activation", "relu", "expected activation to be one of"),
        ("strong_convexity", 1.0, "expected 0 < strong_convexity < 1"),
        ("learning_rate", -1.0, "expected learning_rate > 0"),
        ("max_seconds", 0, "expected max_seconds > 0 or None"),
        ("hidden_features", 64, "expected hidden_features as a tuple of widths, got 64"),
        ("callbacks", print, "expected callbacks as a list of functions"),
        ("dtype", "float16", "expected dtype 'float32' or 'float64'"),
        ("device", "nowhere", "expected a device of this machine, got 'nowhere'"),
    ],
)
def test_a_parameter_out_of_range_is_named(parameter: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        quick(**{parameter: value}).fit(gaussian_points())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("positivity", ["lift", "softplus", "square", "projection"])
def test_every_positivity_lowers_the_held_out_value(positivity: str, dtype: str) -> None:
    flow = quick(positivity=positivity, dtype=dtype, max_steps=60, batch_size=256).fit(bent_points())
    assert flow.used_network_
    assert flow.history_[-1]["held_out"] < flow.history_[0]["held_out"] - 0.5


def test_the_same_seed_gives_the_same_flow_and_others_another() -> None:
    X = bent_points()

    def fitted(seed: Any) -> Array:
        return np.asarray(quick(max_steps=60, random_state=seed).fit(X).log_prob(X))

    np.testing.assert_array_equal(fitted(0), fitted(0))
    np.testing.assert_array_equal(fitted(np.random.RandomState(3)), fitted(np.random.RandomState(3)))
    assert not np.array_equal(fitted(0), fitted(1))
    assert not np.array_equal(fitted(None), fitted(None))


def test_fitting_and_using_leave_global_state_and_inputs_alone() -> None:
    X, weight = gaussian_points().copy(), np.linspace(0, 1, 400)
    for array in (X, weight):
        array.flags.writeable = False
    before = snapshot()
    flow = quick(random_state=None).fit(X, sample_weight=weight)
    flow.invert(flow.transport(X)), flow.sample(3), flow.log_prob(X)
    assert changed_since(before) == []


def test_callbacks_see_records_and_a_map_to_keep_and_can_end_training() -> None:
    seen: list[tuple[dict[str, float], FlowMap]] = []

    def callback(record: dict[str, float], map_: FlowMap) -> bool:
        seen.append((record, map_))
        return len(seen) == 2

    flow = quick(max_steps=10_000, callbacks=[callback]).fit(bent_points())
    assert flow.stop_reason_ == "callback" and len(flow.history_) == 3
    x = torch.from_numpy(bent_points()[:9])
    assert not torch.equal(seen[0][1](x), seen[1][1](x))


def test_a_plateau_ends_training_and_the_clock_too() -> None:
    assert quick(max_steps=10**6, patience=1).fit(gaussian_points()).stop_reason_ == "plateau"
    assert quick(max_steps=10**6, max_seconds=0.2).fit(bent_points()).stop_reason_ == "max_seconds"


def test_the_progress_bar_writes_to_standard_error_alone(capfd: pytest.CaptureFixture[str]) -> None:
    quick(progress=True).fit(gaussian_points())
    written = capfd.readouterr()
    assert written.out == "" and "held-out" in written.err


# ------------------------------------------------------------------------------------------- kinds of data
def sampler(count: int, generator: torch.Generator) -> Tensor:
    """An endless stream of N(3, 4I)."""
    return 3 + 2 * torch.randn(count, 2, generator=generator, dtype=torch.float64)


SAME: dict[str, Callable[[Array, Path], Any]] = {
    "list": lambda x, _: x.tolist(),
    "objects": lambda x, _: x.astype(object),
    "frame": lambda x, _: pd.DataFrame(x, columns=["a", "b"]),
    "tensor": lambda x, _: torch.from_numpy(x),
    "path": lambda x, folder: (np.save(folder / "points.npy", x), folder / "points.npy")[1],
}


@pytest.mark.parametrize("kind", SAME)
def test_every_kind_of_array_gives_the_same_flow(kind: str, tmp_path: Path) -> None:
    fit = gaussian_fit()
    flow = quick().fit(SAME[kind](fit.X, tmp_path))
    np.testing.assert_array_equal(flow.log_prob(fit.X), fit.flow.log_prob(fit.X))


@pytest.mark.parametrize("kind", ["sampler", "loader"])
def test_streams_are_fitted(kind: str, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    monkeypatch.setattr("ot_lift.sides.HELD_OUT_ROWS", 300)
    monkeypatch.setattr("ot_lift.sides._MOMENT_ROWS", 8192)
    points = TensorDataset(sampler(3000, generator))
    flow = quick().fit(sampler if kind == "sampler" else DataLoader(points, batch_size=100))
    assert flow.log_prob([[3.0, 3.0]]).item() == pytest.approx(-np.log(8 * np.pi), abs=0.15)


AWKWARD: dict[str, Callable[[Array], Array]] = {
    "huge": lambda x: 1e12 * x,
    "tiny": lambda x: 1e-12 * x,
    "far away": lambda x: 1e6 + x,
    "columns of unlike size": lambda x: x * [1e4, 1e-4, 1.0],
    "one column": lambda x: x[:, :1],
    "a constant column": lambda x: np.c_[x, 0 * x[:, 0] + 7],
    "a duplicated column": lambda x: np.c_[x, x[:, 0]],
    "more columns than rows": lambda x: np.tile(x[:12], 5),
    "a dozen rows": lambda x: x[:12],
    "rows that repeat": lambda x: np.repeat(x[:40], 10, axis=0),
    "all the same": lambda x: 0 * x + 5,
    "all zero": lambda x: 0 * x,
}


@pytest.mark.parametrize("direction", ["inverse", "forward"])
@pytest.mark.parametrize("case", AWKWARD)
def test_awkward_data_is_fitted_and_comes_back(case: str, direction: str) -> None:
    X = AWKWARD[case](np.random.default_rng(0).normal(size=(400, 3)))
    flow = quick(direction=direction).fit(X)
    latent = flow.transport(X)
    assert np.isfinite(latent).all() and np.isfinite(flow.log_prob(X)).all()
    unit = np.ptp(X, axis=0).max() or np.abs(X).max() or 1.0
    np.testing.assert_allclose(flow.invert(latent), X, rtol=0, atol=1e-6 * unit)
    drawn = flow.sample(200, random_state=0)
    np.testing.assert_allclose(drawn.mean(0) / unit, X.mean(0) / unit, rtol=0, atol=0.3)


def test_units_change_the_log_density_by_their_log_volume() -> None:
    fit = bent_fit()
    options = {"hidden_features": (16, 16), "max_steps": 120, "batch_size": 256}
    scaled = quick(**options).fit(2.0**40 * fit.X)
    expected = fit.flow.log_prob(fit.X) - 80 * np.log(2)
    np.testing.assert_allclose(scaled.log_prob(2.0**40 * fit.X), expected, rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------------------- weights
def test_weights_tilt_the_density(rng: np.random.Generator) -> None:
    X = rng.normal(size=(20_000, 1))
    flow = quick(batch_size=256).fit(X, sample_weight=np.exp(X[:, 0]))  # of N(0, 1), e^x makes N(1, 1)
    fresh = rng.normal(1.0, 1.0, size=(4000, 1))
    truth = Normal(np.ones(1), np.eye(1)).log_prob(fresh)
    assert abs(np.mean(flow.log_prob(fresh) - truth)) < 0.02


def test_rows_of_no_weight_are_ignored_bit_for_bit(rng: np.random.Generator) -> None:
    X = gaussian_points()
    weight = np.r_[np.ones(len(X)), np.zeros(30)]
    one, other = (quick().fit(np.r_[X, junk], sample_weight=weight) for junk in (np.zeros((30, 2)), 1e6 * X[:30]))
    np.testing.assert_array_equal(one.log_prob(X), other.log_prob(X))


def test_a_weight_of_two_is_about_a_row_that_comes_twice(rng: np.random.Generator) -> None:
    X = np.r_[rng.normal(size=(3000, 1)), rng.normal(4.0, 1.0, size=(3000, 1))]
    weight = np.r_[np.ones(3000), np.full(3000, 2)]
    weighted = quick(max_steps=100, batch_size=256).fit(X, sample_weight=weight)
    repeated = quick(max_steps=100, batch_size=256).fit(np.repeat(X, weight.astype(int), axis=0))
    grid = np.linspace(-2, 6, 50)[:, None]
    assert np.abs(np.exp(weighted.log_prob(grid)) - np.exp(repeated.log_prob(grid))).max() < 0.03


@pytest.mark.parametrize(
    ("weight", "words"), [(-np.ones(400), "weight"), (np.ones(3), "400"), (np.full(400, np.nan), "NaN")]
)
def test_bad_weights_are_refused_in_words(weight: Array, words: str) -> None:
    with pytest.raises(DataError, match=words):
        quick().fit(gaussian_points(), sample_weight=weight)


def test_too_few_rows_are_counted() -> None:
    with pytest.raises(DataError, match=r"expected X with at least 6 rows .*got 5"):
        quick().fit(gaussian_points()[:5])


def test_a_failed_fit_leaves_the_earlier_flow() -> None:
    X = gaussian_points()
    flow = quick().fit(X)
    with pytest.raises(DataError):
        flow.fit(X * np.nan)
    np.testing.assert_array_equal(flow.log_prob(X), gaussian_fit().flow.log_prob(X))


# ---------------------------------------------------------------------------------------- what goes wrong
def interrupt(*arguments: Any) -> None:
    """What Ctrl-C does: a SIGINT to this process, also where a shell started it with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_keeps_the_best_state_so_far() -> None:
    with pytest.warns(ConvergenceWarning, match="interrupted; the best state so far is kept") as caught:
        flow = quick(max_steps=10**6, batch_size=256, callbacks=[interrupt]).fit(bent_points())
    assert caught[0].filename == __file__
    assert flow.stop_reason_ == "interrupted"
    np.testing.assert_allclose(flow.invert(flow.transport(bent_points())), bent_points(), atol=1e-6)


@pytest.mark.parametrize("direction", ["inverse", "forward"])
def test_training_that_diverges_keeps_the_best_state_and_says_so(direction: str) -> None:
    with pytest.warns(ConvergenceWarning, match="diverged.*lower learning_rate"):
        flow = quick(direction=direction, learning_rate=1e30, max_steps=400).fit(bent_points())
    assert flow.stop_reason_ == "diverged" and not flow.used_network_
    assert np.isfinite(flow.score(bent_points()))
