"""How BrenierMap fits: seeds, positivities, budgets, callbacks, progress, interruption, and what it refuses."""

from __future__ import annotations

import copy
import inspect
import signal
import time
from typing import Any

import numpy as np
import pytest
import torch
from fits import bent_fit, gaussian_fit, quick
from sklearn.base import clone
from torch import Tensor, nn

from ot_lift import ICNN, BrenierMap, mark_nonnegative
from ot_lift.brenier_fit import certificate_of
from ot_lift.errors import ConvergenceWarning, DataError
from ot_lift.maps import StandardisedPotential
from ot_lift.positivity import marked_parameters
from ot_lift.potentials import AutogradPotential, Quadratic

POSITIVITIES = ["lift", "softplus", "square", "projection"]


class Convex(nn.Module):
    """A user's own network: one layer, convex where `out` is non-negative."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(2, 16), nn.Linear(16, 1)
        mark_nonnegative(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(nn.functional.softplus(self.hidden(x)))


def state(fitted: BrenierMap) -> dict[str, Tensor]:
    """Everything that decides what the map does."""
    coordinates = {f"coordinates.{name}": value for name, value in vars(fitted.potential_.coordinates).items()}
    return {**fitted.potential_.inner.state_dict(), **coordinates}


def same(one: BrenierMap, other: BrenierMap) -> bool:
    first, second = state(one), state(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# --------------------------------------------------------------------------------------------------- seeds
def test_the_same_seed_gives_the_same_map_bit_for_bit() -> None:
    fit = bent_fit()
    again = clone(fit.map).fit(fit.Y[:50], fit.X[:50])
    assert same(again.fit(fit.X, fit.Y), fit.map)  # a second fit starts afresh
    assert again.certificate_ == fit.map.certificate_


def test_a_certificate_forms_a_block_of_hessians(monkeypatch: pytest.MonkeyPatch) -> None:
    """In many dimensions those of all points are more than memory holds, and their eigenvalues take minutes."""
    fit, shapes = bent_fit(), []
    potential, (x, y) = fit.map.potential_, (torch.from_numpy(side[:60]) for side in (fit.X, fit.Y))
    whole = certificate_of(potential, x, y, torch.Generator().manual_seed(0))
    hessian = type(potential).hessian

    def watched(self: StandardisedPotential, at: Tensor) -> Tensor:
        shapes.append(tuple(at.shape))
        return hessian(self, at)

    monkeypatch.setattr(type(potential), "hessian", watched)
    monkeypatch.setattr("ot_lift.hessians._BLOCK_BYTES", 7 * 2**2 * 8)
    parts = certificate_of(potential, x, y, torch.Generator().manual_seed(0))
    assert shapes == [(7, 2)]
    with torch.no_grad():
        least = float(torch.linalg.eigvalsh(hessian(potential, x[:7])).min())
    assert parts.smallest_hessian_eigenvalue == pytest.approx(least)
    assert whole.smallest_hessian_eigenvalue <= least
    assert parts.w2_squared_lower == pytest.approx(whole.w2_squared_lower)


def test_another_seed_gives_another_map_of_the_same_quality() -> None:
    fit = bent_fit()
    other = clone(fit.map).set_params(random_state=1).fit(fit.X, fit.Y)
    assert not same(other, fit.map)
    assert other.score(fit.X, fit.Y) == pytest.approx(fit.map.score(fit.X, fit.Y), rel=0.05)


def test_a_random_state_of_numpy_is_a_seed_too() -> None:
    fit = gaussian_fit()
    fits = [quick(random_state=np.random.RandomState(3)).fit(fit.X, fit.Y) for _ in range(2)]
    assert same(*fits)
    assert not same(fits[0], quick(random_state=np.random.RandomState(4)).fit(fit.X, fit.Y))


def test_without_a_seed_fits_differ() -> None:
    fit = gaussian_fit()
    assert not same(*(quick(random_state=None).fit(fit.X, fit.Y) for _ in range(2)))


# -------------------------------------------------------------------------------------------- positivities
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("positivity", POSITIVITIES)
def test_every_positivity_lowers_the_held_out_value_of_a_convex_map(positivity: str, dtype: str) -> None:
    fit = bent_fit()
    fitted = quick(positivity=positivity, dtype=dtype, max_steps=60, batch_size=256, start="identity").fit(fit.X, fit.Y)
    assert fitted.used_network_
    assert fitted.history_[-1]["held_out"] < fitted.history_[0]["held_out"]
    assert all(bool((weight >= 0).all()) for weight in marked_parameters(fitted.potential_.inner).values())
    assert fitted.certificate_.smallest_hessian_eigenvalue > 0


def test_every_positivity_starts_at_the_same_network() -> None:
    fit = bent_fit()
    starts = [quick(positivity=p, max_steps=1).fit(fit.X, fit.Y).history_[0]["held_out"] for p in POSITIVITIES]
    assert starts == pytest.approx([starts[0]] * len(starts), rel=1e-5)


def test_admm_is_refused_in_words() -> None:
    fit = gaussian_fit()
    with pytest.raises(ValueError, match=r"keeps the potential convex at every step, got 'admm'.*use 'lift'"):
        quick(positivity="admm").fit(fit.X, fit.Y)


# ------------------------------------------------------------------------------------------ a user's network
def test_a_network_of_ones_own_is_trained_and_left_as_it_was(forked_rng: None) -> None:
    fit = bent_fit()
    network = AutogradPotential(Convex(), 2, strong_convexity=0.05)
    before = copy.deepcopy(network.state_dict())
    fitted = quick(network=network, max_steps=150, batch_size=256).fit(fit.X, fit.Y)
    assert fitted.history_[-1]["held_out"] < fitted.history_[0]["held_out"]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    np.testing.assert_allclose(fitted.invert(fitted.transport(fit.X)), fit.X, atol=1e-6)


def test_a_clone_keeps_the_marks_of_its_network() -> None:
    fit = gaussian_fit()
    original = quick(network=ICNN(2, (6,)), max_steps=2)
    duplicate = clone(original)
    assert duplicate.network is not original.network
    assert marked_parameters(duplicate.network).keys() == marked_parameters(original.network).keys()
    assert same(duplicate.fit(fit.X, fit.Y), original.fit(fit.X, fit.Y))


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (nn.Linear(2, 1), r"expected network to be a Potential, got Linear; wrap it as AutogradPotential"),
        (AutogradPotential(nn.Linear(2, 1), 2), r"expected a network of strong_convexity > 0, got 0.0"),
        (ICNN(3, (4,)), r"expected a network of 2 features, as X has, got one of 3"),
        (Quadratic(2, strong_convexity=0.1), r"marked as non-negative, got none; mark them with"),
    ],
)
def test_a_network_that_cannot_be_trained_is_refused_at_once(network: nn.Module, words: str) -> None:
    fit = gaussian_fit()
    with pytest.raises(ValueError, match=words):
        quick(network=network).fit(fit.X, fit.Y)


@pytest.mark.parametrize(
    ("parameter", "value", "words"),
    [
        ("start", "zero", r"expected start 'gaussian', 'identity' or 'plan', got 'zero'"),
        ("dtype", "float16", r"expected dtype 'float32' or 'float64', got 'float16'"),
        ("positivity", "relu", r"expected positivity to be one of .*'softplus'.* got 'relu'"),
        ("activation", "relu", r"expected .*'softplus'.* got 'relu'"),
        ("max_steps", 0, r"expected max_steps to be a whole number > 0, got 0"),
        ("max_steps", "5", r"expected max_steps to be a whole number > 0, got '5'"),
        ("batch_size", -1, r"expected batch_size to be a whole number > 0, got -1"),
        ("batch_size", 10.5, r"expected batch_size to be a whole number > 0, got 10.5"),
        ("learning_rate", float("nan"), r"expected learning_rate > 0, got nan"),
        ("strong_convexity", 0.0, r"expected 0 < strong_convexity < 1, got 0.0"),
        ("strong_convexity", 10.0, r"expected 0 < strong_convexity < 1, got 10.0"),
        ("hidden_features", 64, r"expected hidden_features as a tuple of widths, got 64"),
        ("hidden_features", (), r"expected hidden_features to hold at least one width"),
        ("callbacks", print, r"expected callbacks as a list of functions, got one"),
        ("device", "abacus", r"expected a device of this machine, got 'abacus'"),
        ("max_seconds", 0.0, r"expected max_seconds > 0 or None, got 0.0"),
    ],
)
def test_a_parameter_out_of_range_is_named(parameter: str, value: Any, words: str) -> None:
    fit = gaussian_fit()
    with pytest.raises(ValueError, match=words):
        quick(**{parameter: value}).fit(fit.X, fit.Y)


def test_every_parameter_is_described_and_has_a_default() -> None:
    parameters = list(inspect.signature(BrenierMap).parameters.values())
    described = BrenierMap.__doc__ or ""
    for parameter in parameters:
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is not parameter.empty
        assert f"        {parameter.name}: " in described


# ------------------------------------------------------------------------- budgets, callbacks and the record
def test_the_history_records_steps_times_and_held_out_values() -> None:
    history = bent_fit().map.history_
    assert [record["step"] for record in history] == [0, 50, 100, 120]
    for key in ("seconds", "learning_rate", "held_out"):
        assert all(np.isfinite(record[key]) for record in history)
    assert history[-1]["seconds"] >= history[0]["seconds"] >= 0
    assert bent_fit().map.stop_reason_ == "max_steps"
    assert bent_fit().map.fit_seconds_ >= history[-1]["seconds"]


@pytest.mark.parametrize("start", ["gaussian", "plan"])
def test_max_seconds_is_kept(start: str) -> None:
    fit = gaussian_fit()
    fitted = quick(max_steps=10**6, max_seconds=0.5, start=start).fit(fit.X, fit.Y)
    assert fitted.stop_reason_ == "max_seconds"
    assert 0.5 <= fitted.history_[-1]["seconds"] < 1.5
    assert fitted.history_[-1]["learning_rate"] < 1e-4  # annealed to its end by then


def test_a_plateau_of_the_held_out_value_ends_training() -> None:
    fit = gaussian_fit()
    fitted = quick(max_steps=100_000, patience=1).fit(fit.X, fit.Y)
    assert fitted.stop_reason_ == "plateau"
    assert fitted.history_[-1]["step"] < 2000


def test_callbacks_see_every_record_and_the_potential_so_far() -> None:
    fit, seen = bent_fit(), []

    def callback(record: dict[str, float], potential: Any) -> None:
        image = potential.gradient(torch.from_numpy(fit.X[:50]))  # in data units
        seen.append((record, np.linalg.norm(image.detach().numpy().mean(0) - fit.Y.mean(0))))

    fitted = quick(max_steps=210, callbacks=[callback]).fit(fit.X, fit.Y)
    assert [record for record, _ in seen] == fitted.history_[1:]
    assert all(distance < 1.0 for _, distance in seen)


def test_a_callback_that_returns_true_ends_training() -> None:
    fit = gaussian_fit()
    fitted = quick(max_steps=1000, callbacks=[lambda record, potential: record["step"] >= 200]).fit(fit.X, fit.Y)
    assert fitted.stop_reason_ == "callback"
    assert fitted.history_[-1]["step"] == 200


def test_the_progress_bar_writes_to_standard_error_alone(capfd: pytest.CaptureFixture[str]) -> None:
    fit = gaussian_fit()
    quick(progress=True).fit(fit.X, fit.Y)
    written = capfd.readouterr()
    assert written.out == ""
    assert "held-out" in written.err
    quick().fit(fit.X, fit.Y)
    assert capfd.readouterr() == ("", "")


# -------------------------------------------------------------------------------- Ctrl-C and what goes wrong
def interrupt(*arguments: Any) -> None:
    """What Ctrl-C does: a SIGINT to this process, also where a shell started it with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_keeps_the_best_state_so_far() -> None:
    fit = bent_fit()
    began = time.monotonic()
    with pytest.warns(ConvergenceWarning, match="interrupted; the best state so far is kept"):
        fitted = quick(max_steps=10**6, start="identity", callbacks=[interrupt]).fit(fit.X, fit.Y)
    assert time.monotonic() - began < 30
    assert fitted.stop_reason_ == "interrupted"
    assert fitted.used_network_  # of the hundred steps before the interrupt
    assert fitted.score(fit.X, fit.Y) > quick(max_steps=1, start="identity").fit(fit.X, fit.Y).score(fit.X, fit.Y)
    assert fitted.certificate_.n_source == 150
    np.testing.assert_allclose(fitted.invert(fitted.transport(fit.X)), fit.X, atol=1e-6)


@pytest.mark.parametrize("where", ["ot_lift.brenier_fit.PlanRegression.loss", "ot_lift.brenier_fit.SemiDual.loss"])
def test_ctrl_c_before_the_first_step_leaves_a_fitted_map(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = gaussian_fit()
    monkeypatch.setattr("ot_lift.brenier_fit._PLAN_STEPS", 3)
    monkeypatch.setattr(where, interrupt)
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        fitted = quick(start="plan").fit(fit.X, fit.Y)
    assert fitted.stop_reason_ == "interrupted"
    np.testing.assert_allclose(fitted.transport(fit.X).mean(0), fit.Y.mean(0), atol=1.0)


def test_an_error_in_a_callback_reaches_the_caller() -> None:
    fit = gaussian_fit()

    def callback(record: dict[str, float], potential: Any) -> None:
        raise LookupError("from the callback")

    with pytest.raises(LookupError, match="from the callback"):
        quick(callbacks=[callback]).fit(fit.X, fit.Y)


def test_training_that_diverges_keeps_the_best_state_and_says_so() -> None:
    fit = bent_fit()
    with pytest.warns(ConvergenceWarning, match="diverged.*lower learning_rate"):
        fitted = quick(learning_rate=1e30, max_steps=400).fit(fit.X, fit.Y)
    assert fitted.stop_reason_ == "diverged"
    assert not fitted.used_network_
    np.testing.assert_allclose(fitted.transport(fit.X).mean(0), fit.Y.mean(0), atol=0.2)


def test_fitting_changes_none_of_its_inputs() -> None:
    fit = gaussian_fit()
    X, Y, weight = fit.X.copy(), fit.Y.copy(), np.linspace(0, 1, len(fit.X))
    for array in (X, Y, weight):
        array.flags.writeable = False
    fitted = quick().fit(X, Y, source_weight=weight)
    fitted.transport(X)
    np.testing.assert_array_equal(X, fit.X)
    np.testing.assert_array_equal(Y, fit.Y)


def test_too_few_rows_are_counted() -> None:
    fit = gaussian_fit()
    with pytest.raises(DataError, match=r"expected X with at least 6 rows .*got 5"):
        quick().fit(fit.X[:5], fit.Y)
    assert quick().fit(fit.X[:6], fit.Y[:6]).transport(fit.X[:6]).shape == (6, 2)
