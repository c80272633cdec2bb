"""ConvexPotentialFlow as a density: closed-form answers, laws, kinds of arrays, and its torch distribution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flow_fits import FITS, Fitted, Normal, bent, bent_fit, bent_log_prob, gaussian_fit, quick
from scipy import stats

from ot_lift import ConvexPotentialFlow
from ot_lift.diagnostics import energy_distance
from ot_lift.errors import DataError, ExtrapolationWarning, NotFittedError
from ot_lift.estimators import seed_of
from ot_lift.sides import Side


@pytest.fixture(params=FITS)
def fit(request: pytest.FixtureRequest) -> Fitted:
    return FITS[request.param]()


# ------------------------------------------------------------------------------------------------ oracles
@pytest.mark.parametrize("features", [1, 2, 5])
def test_of_a_gaussian_the_log_likelihood_is_found_and_the_start_is_kept(
    features: int, rng: np.random.Generator
) -> None:
    truth = Normal.random(features, rng, condition=1e4)
    flow = quick(hidden_features=(16, 16), batch_size=256).fit(truth.draw(6000, rng))
    fresh = truth.draw(2000, rng)
    assert not flow.used_network_
    assert abs(np.mean(flow.log_prob(fresh) - truth.log_prob(fresh))) < 0.01 * features


def test_a_start_that_is_kept_is_the_gaussian_of_all_points(rng: np.random.Generator) -> None:
    X = Normal.random(2, rng, condition=1e4).draw(60, rng)
    flow = quick(hidden_features=(4,), max_steps=2).fit(X)
    assert not flow.used_network_
    gaussian = stats.multivariate_normal(X.mean(0), np.cov(X.T, bias=True))
    np.testing.assert_allclose(flow.log_prob(X), gaussian.logpdf(X), rtol=1e-9)
    side = Side.open(X, name="X", features=None, weight=None, generator=torch.Generator().manual_seed(seed_of(0)))
    before = stats.multivariate_normal(side.mean, np.cov(X[side.train].T, bias=True))  # which had not seen the others
    assert flow.held_out_log_likelihood_ == pytest.approx(before.logpdf(side.certificate).mean(), rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("features", [2, 21])
def test_by_default_gaussians_end_within_a_hundredth_of_a_nat_a_dimension(
    features: int, rng: np.random.Generator
) -> None:
    truth = Normal.random(features, rng, condition=1e4)
    flow = ConvexPotentialFlow(random_state=0, max_steps=150).fit(truth.draw(50_000, rng))
    fresh = truth.draw(20_000, rng)
    assert abs(np.mean(flow.log_prob(fresh) - truth.log_prob(fresh))) < 0.01 * features


def test_a_network_on_a_gaussian_stays_within_a_hundredth_of_a_nat_a_dimension(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ot_lift.estimators._CONFIDENCE", 0.001)  # whatever unseen points say
    truth = Normal.random(2, rng, condition=1e4)
    flow = quick(hidden_features=(16, 16), max_steps=200, batch_size=256).fit(truth.draw(6000, rng))
    fresh = truth.draw(4000, rng)
    assert flow.used_network_
    assert abs(np.mean(flow.log_prob(fresh) - truth.log_prob(fresh))) < 0.01 * 2


def test_a_curved_density_is_learnt_far_beyond_the_gaussian(rng: np.random.Generator) -> None:
    fresh = bent(4000, rng)
    truth = bent_log_prob(fresh).mean()
    gaussian = stats.multivariate_normal(bent_fit().X.mean(0), np.cov(bent_fit().X.T)).logpdf(fresh).mean()
    assert truth - gaussian > 2
    for blocks in (1, 2):
        assert truth - bent_fit(blocks=blocks).flow.score(fresh) < 0.15
    assert bent_fit("forward").flow.score(fresh) > gaussian + 0.5


def test_in_one_dimension_the_density_has_a_total_of_one(rng: np.random.Generator) -> None:
    flow = quick(hidden_features=(16, 16), max_steps=200, batch_size=256).fit(rng.gumbel(size=(3000, 1)))
    grid = np.linspace(-12, 25, 20_001)
    density = np.exp(flow.log_prob(grid[:, None]))
    assert flow.used_network_
    assert np.trapezoid(density, grid) == pytest.approx(1.0, abs=1e-5)
    assert 0.5 * np.trapezoid(abs(density - stats.gumbel_r.pdf(grid)), grid) < 0.05  # total variation


# --------------------------------------------------------------------------------------------------- laws
def test_invert_undoes_transport_both_ways(fit: Fitted, rng: np.random.Generator) -> None:
    latent = rng.normal(size=(200, 2))
    np.testing.assert_allclose(fit.flow.invert(fit.flow.transport(fit.X)), fit.X, atol=1e-6 * np.ptp(fit.X))
    np.testing.assert_allclose(fit.flow.transport(fit.flow.invert(latent)), latent, atol=1e-6)


def test_log_prob_is_the_change_of_variables(fit: Fitted) -> None:
    x = torch.from_numpy(fit.X[:20])
    jacobian = torch.stack([torch.autograd.functional.jacobian(fit.flow.map_, point) for point in x])
    latent = torch.from_numpy(fit.flow.transport(fit.X[:20]))
    expected = torch.logdet(jacobian) + torch.distributions.Normal(0.0, 1.0).log_prob(latent).sum(1)
    np.testing.assert_allclose(fit.flow.log_prob(fit.X[:20]), expected, atol=1e-6)
    if len(fit.flow.map_.blocks) == 1:  # a gradient in whitened coordinates, whose matrix is symmetric
        units = fit.flow.map_.coordinates
        inner = jacobian @ units.inverse
        np.testing.assert_allclose(inner, inner.mT, atol=1e-6)


def test_samples_are_of_the_density_that_was_fitted(fit: Fitted) -> None:
    drawn = fit.flow.sample(6000, random_state=0)
    assert drawn.shape == (6000, 2) and drawn.dtype == np.float64
    np.testing.assert_allclose(fit.flow.transport(drawn).mean(0), 0.0, atol=4 / 6000**0.5)
    np.testing.assert_array_equal(drawn, fit.flow.sample(6000, random_state=0))
    assert not np.array_equal(fit.flow.sample(5), fit.flow.sample(5))


@pytest.mark.parametrize("name", ["start kept", "network used"])
def test_samples_have_the_moments_of_the_data(name: str) -> None:
    X, drawn = FITS[name]().X, FITS[name]().flow.sample(20_000, random_state=1)
    error = X.std(0) / len(X) ** 0.5
    assert (abs(drawn.mean(0) - X.mean(0)) < 4 * error).all()
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(X.T), rtol=0.25, atol=0.25 * np.diag(np.cov(X.T)).min())


def test_samples_are_nearer_to_the_data_than_those_of_a_gaussian(rng: np.random.Generator) -> None:
    fresh, fit = bent(2000, rng), bent_fit()
    gaussian = rng.multivariate_normal(fit.X.mean(0), np.cov(fit.X.T), size=2000)
    assert energy_distance(fit.flow.sample(2000, random_state=0), fresh) < 0.2 * energy_distance(gaussian, fresh)


def test_a_prediction_does_not_depend_on_its_batch_mates(fit: Fitted) -> None:
    for call in (fit.flow.transport, fit.flow.invert, fit.flow.log_prob):
        points = fit.X[:50] if call != fit.flow.invert else fit.flow.transport(fit.X[:50])
        one_by_one = np.concatenate([call(points[i : i + 1]) for i in range(50)])
        np.testing.assert_allclose(call(points), one_by_one, rtol=1e-9, atol=1e-9)


def test_score_is_the_mean_log_density(fit: Fitted) -> None:
    assert fit.flow.score(fit.X) == pytest.approx(fit.flow.log_prob(fit.X).mean())
    np.testing.assert_array_equal(fit.flow.score_samples(fit.X), fit.flow.log_prob(fit.X))


def test_the_held_out_figure_is_of_unseen_points_and_comes_with_its_error(rng: np.random.Generator) -> None:
    flow = bent_fit().flow
    assert abs(flow.held_out_log_likelihood_ - flow.score(bent(20_000, rng))) < 4 * flow.held_out_standard_error_


def test_points_far_outside_the_fit_are_warned_about_where_the_caller_is(fit: Fitted) -> None:
    far = fit.X.mean(0) + 1e3 * np.ptp(fit.X, axis=0)
    with pytest.warns(ExtrapolationWarning, match="1 of 2 points of X lie more than twice as far") as caught:
        fit.flow.transport([far, fit.X[0]])
    assert caught[0].filename == __file__


# ------------------------------------------------------------------------------------------ kinds of arrays
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_and_tensors_come_back_in_kind(dtype: Any, fit: Fitted) -> None:
    points = fit.X[:7].astype(dtype)
    for call in (fit.flow.transport, fit.flow.log_prob):
        array, tensor = call(points), call(torch.from_numpy(points))
        assert isinstance(array, np.ndarray) and array.dtype == dtype
        assert isinstance(tensor, torch.Tensor) and tensor.dtype == torch.from_numpy(points).dtype
        np.testing.assert_array_equal(array, tensor.numpy())
        np.testing.assert_allclose(array, call(points.astype(np.float64)), rtol=1e-5, atol=1e-5)
    back = fit.flow.invert(fit.flow.transport(points))
    assert back.dtype == dtype
    np.testing.assert_allclose(back, points, atol=1e-4 * np.ptp(fit.X))


def test_lists_and_whole_numbers_are_points_like_any_other(fit: Fitted) -> None:
    np.testing.assert_array_equal(fit.flow.log_prob([[4, 16]]), fit.flow.log_prob(np.array([[4.0, 16.0]])))


CALLS: dict[str, Callable[[Fitted, Any], object]] = {
    "transport X": lambda fit, bad: fit.flow.transport(bad),
    "invert Z": lambda fit, bad: fit.flow.invert(bad),
    "log_prob X": lambda fit, bad: fit.flow.log_prob(bad),
    "score X": lambda fit, bad: fit.flow.score(bad),
    "fit X": lambda fit, bad: quick().fit(bad),
}
BAD: dict[str, tuple[Any, str]] = {
    "NaN": ([[0.0, 1.0], [np.nan, 0.0]], "got NaN in row 1, column 0"),
    "infinity": ([[0.0, np.inf], [1.0, 0.0]], "got infinity"),
    "one dimension": (np.zeros(5), r"got \(5,\).*[rR]eshape"),
    "strings": (np.full((5, 2), "a"), "got dtype <U1: encode"),
    "objects": (np.array([["a", 1.0]], dtype=object), "got objects that are none"),
    "complex": (np.zeros((5, 2), complex), "got dtype complex128"),
    "empty": (np.empty((0, 2)), "got 0 sample"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("case", BAD)
def test_bad_points_are_refused_in_words(case: str, call: str) -> None:
    bad, got = BAD[case]
    with pytest.raises(DataError, match=rf"(?s)^expected .*{got}"):
        CALLS[call](gaussian_fit(), bad)


@pytest.mark.parametrize("call", [call for call in CALLS if call != "fit X"])
def test_points_of_another_dimension_are_refused_in_words(call: str) -> None:
    with pytest.raises(DataError, match=rf"expected {call.split()[1]} of shape \(n, 2\), got \(5, 3\)"):
        CALLS[call](gaussian_fit(), np.zeros((5, 3)))


@pytest.mark.parametrize("n", [0, -1, 2.5, "ten"])
def test_a_number_of_samples_that_is_none_is_refused(n: Any) -> None:
    with pytest.raises(ValueError, match="expected n to be a whole number > 0"):
        gaussian_fit().flow.sample(n)


def test_an_unfitted_flow_says_so(tmp_path: Any) -> None:
    flow = quick()
    for call in (flow.transport, flow.invert, flow.log_prob, flow.score, flow.score_samples, flow.save):
        with pytest.raises(NotFittedError, match=r"call fit\(X\) first"):
            call(tmp_path)
    for nullary in (flow.sample, flow.distribution):
        with pytest.raises(NotFittedError, match=r"call fit\(X\) first"):
            nullary()


# --------------------------------------------------------------------------------- as a torch distribution
def test_shapes_of_the_distribution_follow_torch(fit: Fitted, forked_rng: None) -> None:
    law = fit.flow.distribution()
    assert law.event_shape == (2,) and law.batch_shape == ()
    assert law.sample().shape == (2,)
    drawn = law.rsample((3, 4))
    assert drawn.shape == (3, 4, 2) and drawn.dtype == torch.float64
    assert law.log_prob(drawn).shape == (3, 4)
    assert law.log_prob(drawn[0, 0]).shape == ()


def test_the_distribution_has_the_density_and_the_samples_of_the_flow(fit: Fitted, forked_rng: None) -> None:
    law = fit.flow.distribution()
    np.testing.assert_allclose(law.log_prob(torch.from_numpy(fit.X)).detach(), fit.flow.log_prob(fit.X), atol=1e-9)
    latent = fit.flow.transport(law.sample((4000,)))
    assert (latent.mean(0).abs() < 4 / 4000**0.5).all()


def test_log_prob_is_differentiable_in_the_points(fit: Fitted) -> None:
    x = torch.from_numpy(fit.X[:5]).requires_grad_()
    law = fit.flow.distribution()
    (gradient,) = torch.autograd.grad(law.log_prob(x).sum(), x)
    step = 1e-5 * torch.from_numpy(fit.X).std(0)
    for column in range(2):
        shift = torch.zeros(2).double()
        shift[column] = step[column]
        slope = (law.log_prob(x + shift) - law.log_prob(x - shift)) / (2 * step[column])
        np.testing.assert_allclose(
            gradient[:, column], slope.detach(), rtol=1e-3, atol=1e-4 / float(step[column] * 1e5)
        )


def test_rsample_is_differentiable_in_the_blocks_by_the_implicit_function_theorem(fit: Fitted) -> None:
    law = fit.flow.distribution()
    transform = law.transforms[0]
    latent = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for name, parameter in list(fit.flow.map_.blocks.named_parameters())[:3]:
        if parameter.dim() == 0:  # a constant of the potential moves nothing
            continue
        direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        found = (torch.autograd.grad(transform(latent).sum(), parameter)[0] * direction).sum()
        kept, values = parameter.detach().clone(), []
        try:
            for step in (1e-5, -1e-5):
                parameter.data.copy_(kept + step * direction)
                values.append(transform(latent).sum().detach())
        finally:
            parameter.data.copy_(kept)
        expected = (values[0] - values[1]) / 2e-5
        assert found.item() == pytest.approx(expected.item(), rel=1e-3, abs=1e-4), name
