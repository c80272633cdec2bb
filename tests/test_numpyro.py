"""The bridge: NumPyro's density, gradients and sites, in torch and float64, and its errors in words."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

jax = pytest.importorskip("jax", reason="needs the extra `posteriors`: pip install 'ot-lift[posteriors]'")
numpyro = pytest.importorskip("numpyro", reason="needs the extra `posteriors`: pip install 'ot-lift[posteriors]'")

import jax.numpy as jnp  # noqa: E402
import numpyro.distributions as dist  # noqa: E402
from numpyro.distributions import constraints  # noqa: E402
from numpyro.infer import initialize_model  # noqa: E402

from ot_lift.errors import DataError  # noqa: E402
from ot_lift.numpyro import NumPyroTarget, from_numpyro  # noqa: E402
from ot_lift.posterior import PosteriorMap  # noqa: E402

Y = np.array([0.3, -1.2, 2.5, 0.1])


def model(y: np.ndarray) -> None:
    """Constrained sites of three kinds, one that is deterministic, one that is observed."""
    slope = numpyro.sample("slope", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    scale = numpyro.sample("scale", dist.HalfNormal(1.5))
    share = numpyro.sample("share", dist.Dirichlet(jnp.array([1.0, 2.0, 3.0])))
    numpyro.deterministic("precision", scale**-2)
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(slope[0] * share[0] + slope[1], scale), obs=y)


@pytest.fixture(scope="module")
def target() -> NumPyroTarget:
    return from_numpyro(model, Y)


@pytest.fixture(scope="module")
def points() -> torch.Tensor:
    return torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def by_hand(x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """NumPyro's own potential and its gradient, with their signs turned, at flat points."""
    with jax.enable_x64(True):
        info = initialize_model(jax.random.PRNGKey(3), model, model_args=(Y,))

        def value(flat: jax.Array) -> jax.Array:
            return -info.potential_fn({"slope": flat[:2], "scale": flat[2], "share": flat[3:]})

        value, gradient = jax.jit(jax.vmap(jax.value_and_grad(value)))(jnp.asarray(x.numpy()))
        return np.asarray(value), np.asarray(gradient)


def test_value_and_gradient_are_numpyros(target: NumPyroTarget, points: torch.Tensor) -> None:
    value, gradient = by_hand(points)
    leaf = points.clone().requires_grad_()
    ours = target.log_density(leaf)
    (slope,) = torch.autograd.grad(ours.sum(), leaf)
    np.testing.assert_allclose(ours.detach(), value, rtol=1e-10)
    np.testing.assert_allclose(slope, gradient, rtol=1e-10, atol=1e-10)


def test_the_hessian_is_the_derivative_of_the_gradient_and_autograd_knows_it(
    target: NumPyroTarget, points: torch.Tensor
) -> None:
    hessian = target.hessian(points)
    step = 1e-5 * torch.eye(5, dtype=torch.float64)[2]
    difference = (target.value_gradient(points + step)[1] - target.value_gradient(points - step)[1]) / 2e-5
    torch.testing.assert_close(hessian[:, 2], difference, rtol=1e-7, atol=1e-7)
    leaf = points.clone().requires_grad_()
    (slope,) = torch.autograd.grad(target.log_density(leaf).sum(), leaf, create_graph=True)
    (row,) = torch.autograd.grad(slope[:, 2].sum(), leaf)
    torch.testing.assert_close(row, hessian[:, 2], rtol=1e-10, atol=1e-10)


def test_float64_needs_no_global_switch(target: NumPyroTarget, points: torch.Tensor) -> None:
    target.log_density(points)
    assert jnp.ones(1).dtype == jnp.float32
    assert target.log_density(points).dtype == torch.float64


def test_any_leading_shape_any_number_of_rows_and_the_callers_dtype(
    target: NumPyroTarget, points: torch.Tensor
) -> None:
    value = target.log_density(points)
    rows = points.repeat(60, 1)
    again = target.log_density(rows)  # by functions compiled for other sizes
    torch.testing.assert_close(again, value.repeat(60), rtol=1e-12, atol=0)
    assert torch.equal(target.log_density(rows.reshape(3, 100, 5)), again.reshape(3, 100))
    assert target.log_density(points[0]).shape == ()
    assert target.log_density(points[:0]).shape == (0,)
    single = target.log_density(points.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, value.float())


def test_sites_names_and_dimension(target: NumPyroTarget) -> None:
    assert target.dim == 5
    assert target.sites == {"slope": (2,), "scale": (), "share": (3,)}
    assert target.names == ("slope[0]", "slope[1]", "scale", "share[0]", "share[1]")


def test_constrain_gives_the_models_sites(target: NumPyroTarget, points: torch.Tensor) -> None:
    sites = target.constrain(points.numpy())
    assert {name: value.shape for name, value in sites.items()} == {
        "slope": (5, 2),
        "scale": (5,),
        "share": (5, 3),
        "precision": (5,),
    }
    np.testing.assert_allclose(sites["scale"], points[:, 2].exp(), rtol=1e-12)
    np.testing.assert_allclose(sites["precision"], sites["scale"] ** -2, rtol=1e-12)
    np.testing.assert_allclose(sites["share"].sum(1), 1.0, rtol=1e-12)
    assert isinstance(target.constrain(points)["slope"], torch.Tensor)


def test_the_pointwise_log_likelihood_is_that_of_the_observations(target: NumPyroTarget, points: torch.Tensor) -> None:
    sites = target.constrain(points)
    mean = sites["slope"][:, 0] * sites["share"][:, 0] + sites["slope"][:, 1]
    expected = torch.distributions.Normal(mean[:, None], sites["scale"][:, None]).log_prob(torch.from_numpy(Y))
    torch.testing.assert_close(target.log_likelihood(points)["y"], expected, rtol=1e-10, atol=1e-10)


def test_an_improper_prior_with_a_proper_posterior() -> None:
    def flat() -> None:
        location = numpyro.sample("location", dist.ImproperUniform(constraints.real, (), ()))
        numpyro.sample("y", dist.Normal(location, 2.0), obs=Y)

    target = from_numpyro(flat)
    posterior = PosteriorMap(random_state=0).fit(target)
    mean, deviation = posterior.invert([[0.0], [1.0]]).ravel()
    assert mean == pytest.approx(Y.mean(), abs=1e-7)
    assert deviation - mean == pytest.approx(1.0, abs=1e-7)  # 2/√4
    assert posterior.diagnosis_.verdict == "good"


def bernoulli() -> None:
    numpyro.sample("flip", dist.Bernoulli(0.5))


def observed_only() -> None:
    numpyro.sample("y", dist.Normal(0.0, 1.0), obs=1.0)


def never(value: float) -> Callable[[], None]:
    def model() -> None:
        numpyro.sample("a", dist.Normal(0.0, 1.0))
        numpyro.factor("f", value)

    return model


def growing() -> Callable[[], None]:
    calls = []

    def model() -> None:
        calls.append(None)
        numpyro.sample("a", dist.Normal(0.0, 1.0).expand([len(calls)]).to_event(1))

    return model


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (bernoulli, "continuous latent sites, got discrete flip"),
        (observed_only, "latent sites, got none"),
        (never(-np.inf), "finite.* got -inf at the origin"),
        (never(np.nan), "finite.* got NaN at the origin"),
        (growing(), r"same names and shapes at every call, got \{'a': \(1,\)\} and then \{'a': \(2,\)\}"),
    ],
    ids=["discrete", "no latents", "never finite", "NaN", "shapes change"],
)
def test_a_model_that_is_no_target_says_why(wrong: Callable[[], None], words: str) -> None:
    with pytest.raises(DataError, match=words):
        from_numpyro(wrong)


def test_a_models_own_error_is_shown_as_it_is() -> None:
    def broken() -> None:
        numpyro.sample("a", dist.Normal(0.0, 1.0))
        raise LookupError("no column 'age'")

    with pytest.raises(LookupError, match="no column 'age'"):
        from_numpyro(broken)


@pytest.mark.parametrize("wrong", [torch.zeros(3, 4), torch.zeros(3, 5, dtype=torch.int64), np.zeros((3, 5))])
def test_points_of_another_kind_are_refused(target: NumPyroTarget, wrong: object) -> None:
    with pytest.raises(DataError, match=r"floating-point tensor of shape \(\.\.\., 5\), got"):
        target.log_density(wrong)


def test_without_numpyro_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpyro", None)
    with pytest.raises(ImportError, match=r"pip install 'ot-lift\[posteriors\]'"):
        from_numpyro(bernoulli)


def test_importing_the_library_imports_neither_numpyro_nor_arviz() -> None:
    code = "import sys, ot_lift, ot_lift.numpyro, ot_lift.posterior; print({'numpyro', 'arviz'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert shown.strip() == "set()"
