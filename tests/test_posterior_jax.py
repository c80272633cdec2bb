"""The map in JAX is the map in torch, and NUTS in its latent space samples the posterior."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from instances import make_cubic, make_icnn, make_quadratic
from targets import log_gamma

jax = pytest.importorskip("jax", reason="needs the extra `posteriors`: pip install 'ot-lift[posteriors]'")
numpyro = pytest.importorskip("numpyro", reason="needs the extra `posteriors`: pip install 'ot-lift[posteriors]'")

import numpyro.distributions as dist  # noqa: E402
from numpyro.infer import MCMC, NUTS  # noqa: E402
from numpyro.infer.util import potential_energy  # noqa: E402

from ot_lift.errors import DataError  # noqa: E402
from ot_lift.numpyro import from_numpyro  # noqa: E402
from ot_lift.posterior import PosteriorMap  # noqa: E402
from ot_lift.posterior_jax import potential_in_jax  # noqa: E402
from ot_lift.potentials import AutogradPotential, Potential  # noqa: E402

FAILURES, HOURS = np.array([3.0, 0.0, 5.0]), np.array([94.0, 16.0, 63.0])

pytestmark = pytest.mark.filterwarnings("ignore::ot_lift.posterior_trust.TrustWarning")


def machines() -> None:
    """Rates whose posterior is Gamma(2 + failures, 10 + hours)."""
    rate = numpyro.sample("rate", dist.Gamma(2.0, 10.0).expand([3]).to_event(1))
    numpyro.deterministic("total", rate.sum())
    numpyro.sample("failures", dist.Poisson(rate * HOURS), obs=FAILURES)


@pytest.fixture(scope="module")
def fitted() -> PosteriorMap:
    return PosteriorMap(hidden_features=(8, 8), max_steps=60, random_state=0).fit(from_numpyro(machines))


@pytest.mark.parametrize(
    "potential",
    [
        make_quadratic(3, torch.float64),
        make_icnn(3, (6, 5), torch.float64),
        make_icnn(3, (6, 5), torch.float64, squared=False, learn_sharpness=True),
        make_cubic(3, torch.float64),
    ],
    ids=["quadratic", "ICNN", "ICNN without squares", "cubic ICNN"],
)
def test_value_gradient_and_hessian_are_torchs(potential: Potential) -> None:
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value, gradient, hessian = (one.detach() for one in potential.value_gradient_hessian(x))
    phi = potential_in_jax(potential)
    with jax.enable_x64(True):
        every = jax.jit(jax.vmap(lambda z: (phi(z), jax.grad(phi)(z), jax.hessian(phi)(z))))(x.numpy())
    for ours, theirs in zip(every, (value, gradient, hessian), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10)


def test_the_latent_density_is_torchs(fitted: PosteriorMap) -> None:
    latent = fitted.precondition()
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    theta, log_q = fitted.map_.push(z)
    log_normal = -0.5 * z.square().sum(1) - 1.5 * np.log(2 * np.pi)

    def every(one: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        return *latent.push(one), -potential_energy(latent.model, (), {}, {"latent": one})

    with jax.enable_x64(True):
        ours, log_det, sampled = jax.jit(jax.vmap(every))(z.numpy())
    np.testing.assert_allclose(ours, theta, rtol=1e-9)
    np.testing.assert_allclose(log_det, log_normal - log_q, atol=1e-9)
    np.testing.assert_allclose(sampled, fitted.target_.log_density(theta) + np.asarray(log_det), rtol=1e-9)


@pytest.mark.slow
def test_nuts_in_the_latent_space_samples_the_posterior(fitted: PosteriorMap) -> None:
    with jax.enable_x64(True):
        sampler = MCMC(NUTS(fitted.precondition().model), num_warmup=100, num_samples=1000, progress_bar=False)
        sampler.run(jax.random.PRNGKey(0))
        draws = {name: np.asarray(value) for name, value in sampler.get_samples().items()}
    assert {name: value.shape[1:] for name, value in draws.items()} == {"latent": (3,), "rate": (3,), "total": ()}
    mean, deviation = (2 + FAILURES) / (10 + HOURS), np.sqrt(2 + FAILURES) / (10 + HOURS)
    assert np.abs((draws["rate"].mean(0) - mean) / deviation).max() < 0.1
    np.testing.assert_allclose(draws["rate"].std(0), deviation, rtol=0.1)


def test_what_cannot_be_preconditioned_is_said(fitted: PosteriorMap) -> None:
    with pytest.raises(DataError, match=r"target that ot_lift\.numpyro\.from_numpyro made, got Density"):
        fitted.precondition(target=log_gamma(3))
    backward = PosteriorMap(direction="inverse", max_steps=1, random_state=0).fit(log_gamma(3))
    with pytest.raises(DataError, match="direction='forward'"):
        backward.precondition()
    with pytest.raises(DataError, match="Quadratic or an ICNN, got AutogradPotential"):
        potential_in_jax(AutogradPotential(torch.nn.Identity(), 1))
