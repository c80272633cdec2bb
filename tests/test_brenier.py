"""BrenierMap as a map: closed-form answers, laws, conventions of arrays, scikit-learn and POT, and the certificate."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import ot
import pandas as pd
import pytest
import torch
from fits import Fitted, Gaussians, bent, bent_fit, gaussian_fit, quick
from scipy import stats
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ot_lift import BrenierMap
from ot_lift.diagnostics import l2_uvp
from ot_lift.errors import DataError, ExtrapolationWarning, NotFittedError
from ot_lift.splits import paired_splits

Array = npt.NDArray[np.float64]

FITS: dict[str, Callable[[], Fitted]] = {"start kept": gaussian_fit, "network used": bent_fit}


@pytest.fixture(params=FITS)
def fit(request: pytest.FixtureRequest) -> Fitted:
    return FITS[request.param]()


# ------------------------------------------------------------------------------------------------ oracles
@pytest.mark.parametrize("features", [1, 2, 5])
def test_between_gaussians_the_closed_form_map_is_found_and_the_start_is_kept(
    features: int, rng: np.random.Generator
) -> None:
    pair = Gaussians.random(features, rng)
    X, Y, fresh = pair.x(4000, rng), pair.y(5000, rng), pair.x(2000, rng)
    fitted = quick(hidden_features=(16, 16), batch_size=256).fit(X, Y)
    assert not fitted.used_network_
    # The map of 3,200 and 4,000 points' moments: its relative error is of order features/points.
    assert l2_uvp(fitted.transport(fresh), pair.transport(fresh), Y) < 100 * 4 * (features + 1) / len(X)
    image = pair.transport(fresh)
    assert l2_uvp(fitted.invert(image), fresh, X) < 1.0


@pytest.mark.parametrize("start", ["gaussian", "plan"])
@pytest.mark.parametrize("seed", range(3))
def test_on_gaussians_the_result_is_never_worse_than_its_start(
    start: str, seed: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ot_lift.brenier_fit._PLAN_STEPS", 30)
    pair = Gaussians.random(2, rng)
    X, Y = pair.x(600, rng), pair.y(600, rng)
    fitted = quick(start=start, max_steps=40, learning_rate=0.05, random_state=seed).fit(X, Y)
    assert not fitted.used_network_
    # The start, an affine map: it commutes with averages up to rounding.
    left, right = X[:200], X[200:400]
    halfway = 0.5 * (fitted.transport(left) + fitted.transport(right))
    np.testing.assert_allclose(fitted.transport(0.5 * (left + right)), halfway, atol=1e-9)


def test_from_the_identity_it_comes_within_one_percent(rng: np.random.Generator) -> None:
    pair = Gaussians.random(2, rng)
    X, Y, fresh = pair.x(4000, rng), pair.y(4000, rng), pair.x(2000, rng)
    options = {"start": "identity", "hidden_features": (16, 16), "batch_size": 256}
    fitted = quick(max_steps=200, **options).fit(X, Y)
    assert fitted.used_network_
    assert l2_uvp(fresh + pair.shift, pair.transport(fresh), Y) > 5
    assert l2_uvp(fitted.transport(fresh), pair.transport(fresh), Y) < 1


def test_in_one_dimension_it_is_the_map_of_quantiles(rng: np.random.Generator) -> None:
    X, Y, fresh = rng.normal(size=(3000, 1)), rng.exponential(size=(3500, 1)), rng.normal(size=(2000, 1))
    truth = stats.expon.ppf(stats.norm.cdf(fresh))
    fitted = quick(hidden_features=(16, 16), max_steps=300, batch_size=256).fit(X, Y)
    linear = Y.mean() + Y.std() * fresh
    assert l2_uvp(fitted.transport(fresh), truth, Y) < 0.25 * l2_uvp(linear, truth, Y)
    order = np.argsort(fresh[:, 0])
    assert (np.diff(fitted.transport(fresh)[order, 0]) > 0).all()  # it never swaps two points


def test_a_plan_gives_a_better_start_than_the_gaussians(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ot_lift.brenier_fit._PLAN_STEPS", 200)
    X, Y, fresh = rng.normal(size=(1500, 2)), bent(1500, rng), rng.normal(size=(2000, 2))
    truth = stats.expon.ppf(stats.norm.cdf(fresh))
    errors = {
        start: l2_uvp(quick(start=start, hidden_features=(16, 16), batch_size=256).fit(X, Y).transport(fresh), truth, Y)
        for start in ("gaussian", "plan")
    }
    assert errors["plan"] < 0.5 * errors["gaussian"]


@pytest.mark.slow
@pytest.mark.parametrize("features", [2, 8])
def test_by_default_gaussians_end_within_a_tenth_of_a_percent(features: int, rng: np.random.Generator) -> None:
    pair = Gaussians.random(features, rng)
    X, Y, fresh = pair.x(50_000, rng), pair.y(50_000, rng), pair.x(5000, rng)
    fitted = BrenierMap(random_state=0, max_steps=150).fit(X, Y)
    assert l2_uvp(fitted.transport(fresh), pair.transport(fresh), Y) < 0.1


@pytest.mark.slow
def test_by_default_quantiles_end_within_one_percent(rng: np.random.Generator) -> None:
    X, Y, fresh = rng.normal(size=(20_000, 1)), rng.exponential(size=(20_000, 1)), rng.normal(size=(5000, 1))
    truth = stats.expon.ppf(stats.norm.cdf(fresh))
    fitted = BrenierMap(random_state=0, max_steps=400).fit(X, Y)
    assert l2_uvp(fitted.transport(fresh), truth, Y) < 1


# --------------------------------------------------------------------------------------------------- laws
def test_invert_undoes_transport_both_ways(fit: Fitted) -> None:
    there, back = fit.map.transport(fit.X), fit.map.invert(fit.Y)
    np.testing.assert_allclose(fit.map.invert(there), fit.X, atol=1e-7 * np.ptp(fit.X))
    np.testing.assert_allclose(fit.map.transport(back), fit.Y, atol=1e-7 * np.ptp(fit.Y))


def test_fenchel_young_holds_in_data_units_with_equality_at_the_image(fit: Fitted) -> None:
    x, y = fit.X[:200], fit.Y[:200]
    phi, phi_star = fit.map.potential(x), fit.map.conjugate(y)
    scale = np.abs(phi).max() + np.abs(phi_star).max()
    assert (phi[:, None] + phi_star[None, :] - x @ y.T >= -1e-9 * scale).all()
    image = fit.map.transport(x)
    np.testing.assert_allclose(phi + fit.map.conjugate(image), (x * image).sum(1), atol=1e-9 * scale)


def test_transport_is_the_gradient_of_the_potential_and_invert_of_its_conjugate(fit: Fitted) -> None:
    step = 1e-5
    for function, gradient, points in (
        (fit.map.potential, fit.map.transport, fit.X[:20]),
        (fit.map.conjugate, fit.map.invert, fit.Y[:20]),
    ):
        for column, move in enumerate(step * np.eye(2)):
            slope = (function(points + move) - function(points - move)) / (2 * step)
            np.testing.assert_allclose(slope, gradient(points)[:, column], atol=1e-4)


def test_transport_is_strongly_monotone(fit: Fitted) -> None:
    x, other = fit.X[:300], fit.X[300:400].repeat(3, axis=0)
    moved = fit.map.transport(x) - fit.map.transport(other)
    square = ((x - other) ** 2).sum(1)
    mu = fit.map.potential_.strong_convexity
    assert mu > 0
    assert ((moved * (x - other)).sum(1) >= mu * square * (1 - 1e-6)).all()


def test_a_prediction_does_not_depend_on_its_batch_mates(fit: Fitted) -> None:
    whole = fit.map.transport(fit.X), fit.map.invert(fit.Y)
    for row in (0, 7, 311):
        np.testing.assert_allclose(fit.map.transport(fit.X[row : row + 1])[0], whole[0][row], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(fit.map.invert(fit.Y[row : row + 1])[0], whole[1][row], rtol=1e-8, atol=1e-8)


def test_many_rows_go_through_in_blocks(rng: np.random.Generator) -> None:
    fit = gaussian_fit()
    many = rng.choice(fit.X, 2**15 + 17)
    parts = [fit.map.transport(part) for part in np.array_split(many, 3)]
    np.testing.assert_allclose(fit.map.transport(many), np.concatenate(parts), rtol=1e-12, atol=1e-12)


def test_map_is_a_torch_transform_of_the_same_potential(fit: Fitted) -> None:
    x = torch.from_numpy(fit.X[:50])
    image = fit.map.map_(x)
    np.testing.assert_allclose(image.detach().numpy(), fit.map.transport(fit.X[:50]), rtol=1e-12)
    torch.testing.assert_close(fit.map.map_.inv(image.detach()), x, rtol=0, atol=1e-7)
    jacobian = torch.stack([torch.autograd.functional.jacobian(fit.map.map_, row[None])[0, :, 0] for row in x[:3]])
    torch.testing.assert_close(fit.map.map_.log_abs_det_jacobian(x[:3], image[:3]), jacobian.det().log())


# ------------------------------------------------------------------------------------- extras of the map
def test_interpolation_begins_at_x_and_ends_at_its_image(fit: Fitted) -> None:
    image = fit.map.transport(fit.X)
    np.testing.assert_array_equal(fit.map.interpolate(fit.X, 0), fit.X)
    np.testing.assert_array_equal(fit.map.interpolate(fit.X, 1), image)
    np.testing.assert_allclose(fit.map.interpolate(fit.X, 0.25), 0.75 * fit.X + 0.25 * image)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_interpolation_takes_narrow_floats(dtype: type, fit: Fitted) -> None:
    middle = fit.map.interpolate(fit.X.astype(dtype), 0.5)
    assert middle.dtype == np.float32
    np.testing.assert_allclose(middle, fit.map.interpolate(fit.X, 0.5), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("t", [-0.1, 1.5, float("nan")])
def test_interpolation_refuses_times_outside_the_path(t: float, fit: Fitted) -> None:
    with pytest.raises(ValueError, match=r"expected t in \[0, 1\], got"):
        fit.map.interpolate(fit.X, t)


def test_points_far_outside_the_fit_are_warned_about(fit: Fitted) -> None:
    centre = fit.X.mean(0)
    far = np.concatenate([fit.X[:5], centre + 50 * (fit.X[:3] - centre)])
    with pytest.warns(ExtrapolationWarning, match="3 of 8 points of X lie more than twice as far out"):
        fit.map.transport(far)
    with pytest.warns(ExtrapolationWarning, match="of 8 points of X"):
        fit.map.interpolate(far, 0.5)
    centre = fit.Y.mean(0)
    far = np.concatenate([fit.Y[:5], centre + 50 * (fit.Y[:3] - centre)])
    with pytest.warns(ExtrapolationWarning, match="3 of 8 points of Y lie more than twice as far out"):
        fit.map.invert(far)


def test_the_warning_names_the_line_that_called(fit: Fitted) -> None:
    with pytest.warns(ExtrapolationWarning) as caught:
        fit.map.transport(1e3 + fit.X[:2])
    assert caught[0].filename == __file__


def test_no_point_of_the_fit_is_warned_about(rng: np.random.Generator) -> None:
    many, few = rng.standard_t(2.0, size=(400, 2)), rng.standard_t(2.0, size=(12, 2))  # heavy tails
    weight = {"source_weight": rng.uniform(size=400)}
    for X, Y, weights in ((many, few, {}), (few, many, {}), (many, few, weight)):
        fitted = quick().fit(X, Y, **weights)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fitted.transport(X)
            fitted.invert(Y)
        assert not [one for one in caught if one.category is ExtrapolationWarning]


# -------------------------------------------------------------------------------------------------- score
def test_score_is_the_dual_value_of_the_new_points(fit: Fitted) -> None:
    x, y = fit.X[:300], fit.Y[:400]
    squares = (x**2).sum(1).mean() + (y**2).sum(1).mean()
    dual = squares - 2 * (fit.map.potential(x).mean() + fit.map.conjugate(y).mean())
    assert fit.map.score(x, y) == pytest.approx(dual, rel=1e-9)


def test_score_stays_below_w2_squared_and_prefers_the_better_map(rng: np.random.Generator) -> None:
    pair = Gaussians.random(2, rng)
    X, Y = pair.x(2000, rng), pair.y(2500, rng)
    poor = quick(start="identity", max_steps=1).fit(X, Y)
    good = quick().fit(X, Y)
    x, y = pair.x(4000, rng), pair.y(4500, rng)
    gap = ((x - good.transport(x)) ** 2).sum(1)
    error = gap.std() / np.sqrt(len(gap)) + 2 * np.linalg.norm(pair.shift) * np.sqrt(2 * pair.target.trace() / len(y))
    assert poor.score(x, y) < good.score(x, y) < pair.w2_squared + 3 * error
    assert good.score(x, y) == pytest.approx(pair.w2_squared, abs=3 * error + 0.01 * pair.w2_squared)


def test_score_keeps_its_digits_far_from_the_origin(rng: np.random.Generator) -> None:
    X, Y = rng.normal(size=(300, 2)), 3 + 2 * rng.normal(size=(300, 2))
    near, far = quick().fit(X, Y), quick().fit(X + 1e6, Y + 1e6)
    assert far.score(X + 1e6, Y + 1e6) == pytest.approx(near.score(X, Y), rel=1e-4)


def test_paired_splits_validate_sides_of_different_sizes(rng: np.random.Generator) -> None:
    X, Y = rng.normal(size=(120, 1)), 1 + rng.normal(size=(180, 1))
    scores = [
        quick().fit(X[x_train], Y[y_train]).score(X[x_test], Y[y_test])
        for (x_train, y_train), (x_test, y_test) in paired_splits(120, 180, folds=3, random_state=0)
    ]
    assert len(scores) == 3
    assert np.mean(scores) == pytest.approx(1.0, abs=0.8)


# ------------------------------------------------------------------------------------ arrays in, arrays out
KINDS: dict[str, tuple[Callable[[Array], Any], Any]] = {
    "float64": (lambda x: x, np.float64),
    "float32": (lambda x: x.astype(np.float32), np.float32),
    "float16": (lambda x: x.astype(np.float16), np.float32),
    "fortran order": (np.asfortranarray, np.float64),
    "strided": (lambda x: np.repeat(np.repeat(x, 2, 0), 2, 1)[::2, ::2], np.float64),
    "reversed": (lambda x: x[::-1][::-1], np.float64),
    "big endian": (lambda x: x.astype(">f8"), np.float64),
    "list": (lambda x: x.tolist(), np.float64),
    "frame": (lambda x: pd.DataFrame(x, columns=["a", "b"]), np.float64),
    "tensor float64": (torch.from_numpy, torch.float64),
    "tensor float32": (lambda x: torch.from_numpy(x).float(), torch.float32),
    "tensor with gradient": (lambda x: torch.from_numpy(x).requires_grad_(), torch.float64),
}


@pytest.mark.parametrize("kind", KINDS)
def test_answers_come_in_the_kind_of_array_that_was_given(kind: str, fit: Fitted) -> None:
    make, dtype = KINDS[kind]
    tolerance = 0.02 if kind == "float16" else 1e-4 if "32" in kind else 1e-12
    for call, points in (
        (fit.map.transport, fit.X[:40]),
        (fit.map.invert, fit.Y[:40]),
        (fit.map.potential, fit.X[:40]),
        (fit.map.conjugate, fit.Y[:40]),
    ):
        given = make(points)
        answer = call(given)
        assert isinstance(answer, torch.Tensor if isinstance(given, torch.Tensor) else np.ndarray)
        assert answer.dtype == dtype
        if isinstance(answer, torch.Tensor):
            assert answer.device == given.device
            assert not answer.requires_grad
        expected = call(points)
        error = np.abs(np.asarray(answer) - expected).max()
        assert error <= tolerance * np.abs(expected).max()


def test_whole_numbers_are_points_like_any_other(fit: Fitted) -> None:
    whole = np.array([[0, 1], [1, 0]])
    for kind in (whole, whole.astype(np.uint8), whole.astype(bool), whole.tolist(), torch.from_numpy(whole)):
        np.testing.assert_array_equal(np.asarray(fit.map.transport(kind)), fit.map.transport(whole.astype(float)))


def test_a_single_row_is_enough_to_predict(fit: Fitted) -> None:
    assert fit.map.transport(fit.X[:1]).shape == (1, 2)
    assert fit.map.invert(fit.Y[:1]).shape == (1, 2)
    assert np.isfinite(fit.map.score(fit.X[:1], fit.Y[:1]))


# ------------------------------------------------------------------------------------------- scikit-learn
def test_parameters_are_read_set_and_cloned() -> None:
    fitted = gaussian_fit().map
    assert fitted.get_params()["max_steps"] == fitted.max_steps
    fresh = clone(fitted)
    assert fresh.get_params() == fitted.get_params()
    assert not hasattr(fresh, "potential_")
    assert fresh.set_params(max_steps=3, positivity="softplus") is fresh
    assert (fresh.max_steps, fresh.positivity) == (3, "softplus")
    assert repr(fresh).startswith("BrenierMap(")
    with pytest.raises(ValueError, match="Invalid parameter 'steps'"):
        fresh.set_params(steps=3)


def test_a_pipeline_transforms_and_inverts(rng: np.random.Generator) -> None:
    X, Y = 5 + 3 * rng.normal(size=(300, 2)), rng.normal(size=(200, 2))
    model = make_pipeline(StandardScaler(), quick()).fit(X, Y)
    moved = model.transform(X)
    np.testing.assert_allclose(moved.mean(0), Y.mean(0), atol=0.2)
    np.testing.assert_allclose(model.inverse_transform(moved), X, atol=1e-6)
    assert np.isfinite(model.score(X, Y))
    assert make_pipeline(quick(), StandardScaler()).fit(X, Y).transform(X).shape == X.shape
    np.testing.assert_array_equal(quick().fit_transform(X, Y), quick().fit(X, Y).transform(X))


def test_grid_search_and_cross_validation_work_on_sides_of_one_size(rng: np.random.Generator) -> None:
    X, Y = rng.normal(size=(90, 1)), 2 + rng.normal(size=(90, 1))
    search = GridSearchCV(quick(max_steps=3), {"learning_rate": [1e-3, 1e-2]}, cv=2).fit(X, Y)
    assert search.best_estimator_.transform(X).shape == X.shape
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert cross_val_score(quick(max_steps=3), X, Y, cv=2).shape == (2,)


@pytest.mark.parametrize("call", ["transport", "invert", "potential", "conjugate", "transform", "inverse_transform"])
def test_an_unfitted_map_says_so(call: str) -> None:
    with pytest.raises(NotFittedError, match="not fitted yet: call fit"):
        getattr(BrenierMap(), call)(np.zeros((2, 2)))


def test_an_unfitted_map_has_no_score_no_path_and_no_file(tmp_path: Any) -> None:
    for use in (
        lambda m: m.score(np.zeros((2, 2)), np.zeros((2, 2))),
        lambda m: m.interpolate(np.zeros((2, 2)), 0.5),
        lambda m: m.save(tmp_path / "map"),
    ):
        with pytest.raises(NotFittedError, match="not fitted yet: call fit"):
            use(BrenierMap())
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------- POT
def test_pots_spelling_gives_the_same_map() -> None:
    fit = gaussian_fit()
    ported = quick().fit(Xs=fit.X, Xt=fit.Y)
    np.testing.assert_array_equal(ported.transform(Xs=fit.X), fit.map.transport(fit.X))
    np.testing.assert_array_equal(ported.inverse_transform(Xt=fit.Y), fit.map.invert(fit.Y))
    np.testing.assert_array_equal(ported.transform(fit.X), fit.map.transport(fit.X))
    np.testing.assert_array_equal(ported.inverse_transform(fit.Y), fit.map.invert(fit.Y))


def test_code_for_pots_linear_map_ports() -> None:
    fit = gaussian_fit()
    answers = [
        model.fit(Xs=fit.X, Xt=fit.Y).transform(Xs=fit.X) for model in (ot.da.LinearTransport(reg=1e-8), quick())
    ]
    # Both are the map between Gaussians of the samples' moments; ours holds a fifth of the points out.
    assert l2_uvp(answers[1], answers[0], fit.Y) < 3


@pytest.mark.parametrize(("given", "got"), [({}, "neither"), ({"X": 1, "Xs": 1}, "both")])
def test_exactly_one_spelling_is_accepted(given: dict[str, int], got: str) -> None:
    fit = gaussian_fit()
    with pytest.raises(DataError, match=f"expected one of X and Xs, got {got}"):
        quick().fit(Y=fit.Y, **dict.fromkeys(given, fit.X))
    with pytest.raises(DataError, match=f"expected one of X and Xs, got {got}"):
        fit.map.transform(**dict.fromkeys(given, fit.X))
    with pytest.raises(DataError, match=f"expected one of Y and Xt, got {got}"):
        fit.map.inverse_transform(**{{"X": "Y", "Xs": "Xt"}[name]: fit.Y for name in given})


# -------------------------------------------------------------------------------------------- certificate
def test_the_known_distance_lies_inside_the_bounds(rng: np.random.Generator) -> None:
    for features in (1, 2, 4):
        pair = Gaussians.random(features, rng, condition=4.0)
        found = quick().fit(pair.x(3000, rng), pair.y(3500, rng)).certificate_
        assert found.w2_squared_lower <= pair.w2_squared <= found.w2_squared_upper
        assert found.primal_cost == pytest.approx(pair.w2_squared, rel=0.2)
        assert (found.n_source, found.n_target) == (300, 350)
        assert found.converged
        assert found.smallest_hessian_eigenvalue > 0
        assert found.inversion_residual < 1e-6


def test_a_good_map_gets_no_poor_word(rng: np.random.Generator) -> None:
    found = quick().fit(rng.normal(size=(3000, 2)), 10 + rng.normal(size=(3000, 2))).certificate_
    assert found.words == ()
    assert "No figure is poor" in str(found)


def test_the_identity_does_not_exclude_the_truth(rng: np.random.Generator) -> None:
    X, Y = rng.normal(size=(2000, 2)), 3 + rng.normal(size=(2000, 2))
    found = quick(start="identity", max_steps=1).fit(X, Y).certificate_
    assert found.w2_squared_lower <= 18.0 <= found.w2_squared_upper


def test_few_steps_get_a_bad_certificate(rng: np.random.Generator) -> None:
    X = rng.normal(size=(2000, 2))
    Y = rng.choice([-4.0, 4.0], size=(2000, 2)) + 0.3 * rng.normal(size=(2000, 2))
    found = quick(start="identity", max_steps=1).fit(X, Y).certificate_
    assert any("differ strongly from the target" in word for word in found.words)
    assert found.pushforward_energy > 2 * found.pushforward_null
    assert found.w2_squared_lower < found.w2_squared_upper


def test_more_training_gives_a_better_certificate() -> None:
    fit = bent_fit()
    short = quick(start="identity", max_steps=1).fit(fit.X, fit.Y).certificate_
    long = fit.map.certificate_
    assert long.dual_value > short.dual_value
    assert long.pushforward_energy < short.pushforward_energy
