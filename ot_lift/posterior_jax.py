"""A posterior map in JAX: NumPyro's samplers run in its latent space, and their draws are mapped back."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ot_lift.errors import DataError
from ot_lift.posterior_latent import LatentMap
from ot_lift.posterior_potential import CubicICNN
from ot_lift.potentials import ICNN, Potential, Quadratic


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"expected {name} to be installed, got {error}; install it with pip install 'ot-lift[posteriors]'"
        ) from error


def potential_in_jax(potential: Potential) -> Callable[[Any], Any]:
    """φ as a JAX function of one point ``(d,)``: plain operations, so that it can be compiled and differentiated.

    Args:
        potential: a :class:`~ot_lift.potentials.Quadratic`, or a softplus :class:`~ot_lift.potentials.ICNN` with or
            without cubic units: what a posterior map is made of.

    Raises:
        DataError: for another potential.

    Example:
        >>> phi = potential_in_jax(Quadratic(2))
        >>> float(phi(np.array([3.0, 4.0])))  # ½‖x‖²
        12.5
    """
    jnp = _import("jax.numpy")
    softplus = _import("jax.nn").softplus
    if not isinstance(potential, Quadratic | ICNN):
        raise DataError(f"expected a Quadratic or an ICNN, got {type(potential).__name__}")
    if isinstance(potential, ICNN) and potential.activation.name != "softplus":
        raise DataError(f"expected an ICNN of softplus units, got {potential.activation.name}")
    weights = {name: value.detach().double().cpu().numpy() for name, value in potential.state_dict().items()}
    mu = potential.strong_convexity
    layers = len(potential.hidden_features) if isinstance(potential, ICNN) else 0
    fixed = potential.config()["sharpness"] if isinstance(potential, ICNN) else 1.0
    sharpness = np.exp(weights["log_sharpness"]) if "log_sharpness" in weights else np.full(layers, fixed)

    def quadratic(x: Any, prefix: str = "") -> Any:
        squares = jnp.sum((x @ weights[f"{prefix}factor"]) ** 2) + mu * jnp.sum(x**2)
        return 0.5 * squares + x @ weights[f"{prefix}linear"] + weights[f"{prefix}offset"]

    def network(x: Any) -> Any:
        below = x
        for k in range(layers):
            u = weights[f"inputs.{k}"] @ x + weights[f"biases.{k}"]
            if f"squares.{k}" in weights:
                u = u + (weights[f"squares.{k}"] @ x) ** 2
            if k:
                u = u + weights[f"weights.{k - 1}"] @ below
            below = softplus(sharpness[k] * u) / sharpness[k]
        value = (weights["readout"] @ below)[0] + quadratic(x, "quadratic.")
        if isinstance(potential, CubicICNN):
            excess = jnp.maximum(weights["cubic_inputs"] @ x + weights["cubic_biases"], 0.0)
            value = value + excess**3 @ weights["cubic_weights"] / 6.0
        return value

    return network if layers else quadratic


class Preconditioned:
    """A NumPyro model's posterior in the latent space of a forward map, where it is about N(0, I).

    The map is a bijection of ℝᵈ, so the reparametrised posterior is the posterior: a sampler in the latent space
    keeps its tails, however rough the map. It computes in the precision that JAX is set to.

    Attributes:
        dim: number of latent coordinates.

    References:
        Hoffman et al. 2019, NeuTra-lizing bad geometry in Hamiltonian Monte Carlo (arXiv 1903.03704).

    Example:
        >>> import jax, numpyro, numpyro.distributions as dist
        >>> from ot_lift.numpyro import from_numpyro
        >>> from ot_lift.posterior import PosteriorMap
        >>> def rate():
        ...     numpyro.sample("height", dist.Normal(3.0, 2.0))
        >>> latent = PosteriorMap(random_state=0).fit(from_numpyro(rate)).precondition()
        >>> theta, log_det = latent.push(jax.numpy.ones(1))  # 3 + 2z, and log 2
        >>> round(float(theta[0]), 4), round(float(log_det), 4)
        (5.0, 0.6931)

    Then ``MCMC(NUTS(latent.model), …).run(key)`` has the sites of ``rate`` among its draws.
    """

    def __init__(self, target: Any, latent: LatentMap) -> None:
        self._numpyro = _import("numpyro")
        if latent.direction != "forward":
            raise DataError(
                "expected a map fitted with direction='forward', whose draws are gradients, got 'inverse': "
                "its inversion is no JAX function"
            )
        if not (hasattr(target, "jax_log_density") and hasattr(target, "jax_constrain")):
            raise DataError(
                f"expected a target that ot_lift.numpyro.from_numpyro made, got {type(target).__name__}: pass one"
            )
        self._target, self._units = target, latent.units
        self._potential = potential_in_jax(latent.potential)
        self.dim = len(latent.units.mode)

    def push(self, z: Any) -> tuple[Any, Any]:
        """Unconstrained parameters θ = c + R∇φ(z) ``(d,)`` of a latent ``z`` ``(d,)``, and log |det ∂θ/∂z|."""
        jax = _import("jax")
        centre, root = self._units.centre.numpy(), self._units.root.numpy()
        factor = jax.numpy.linalg.cholesky(jax.hessian(self._potential)(z))
        log_det = 2 * jax.numpy.log(jax.numpy.diagonal(factor)).sum() + self._units.log_det
        return centre + root @ jax.grad(self._potential)(z), log_det

    def log_density(self, z: Any) -> Any:
        """Unnormalised log density of the posterior in the latent space, at one ``z`` ``(d,)``."""
        theta, log_det = self.push(z)
        return self._target.jax_log_density(theta) + log_det

    def model(self) -> None:
        """The posterior as a NumPyro model of the site ``latent``; the sites of the first model are deterministic."""
        distributions, handlers = self._numpyro.distributions, _import("numpyro.handlers")
        start = distributions.Normal(0.0, 1.0).expand([self.dim]).to_event(1)  # where samplers look first
        z = self._numpyro.sample("latent", start)
        theta, log_det = self.push(z)
        with handlers.block():  # the first model's own sites are no business of the sampler
            log_density = self._target.jax_log_density(theta)
            sites = self._target.jax_constrain(theta)
        self._numpyro.factor("posterior", log_density + log_det - start.log_prob(z))
        for name, value in sites.items():
            self._numpyro.deterministic(name, value)
