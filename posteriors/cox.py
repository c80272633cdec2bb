"""What the log-Gaussian Cox processes of the catalogue share: counts on a square grid under a Gaussian field."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from posteriors.regression import Array
from posteriors.target import Posterior

_VARIANCE, _LENGTH = 1.0, 0.25  # of the field; the length in sides of the square


def covariance(side: int) -> Array:
    """Exponential covariance ``(side², side²)`` between the cells of a grid on the unit square.

    Example:
        >>> covariance(2).diagonal().tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    centres = (np.arange(side) + 0.5) / side
    cells = np.stack(np.meshgrid(centres, centres, indexing="ij"), -1).reshape(-1, 2)
    distance = np.linalg.norm(cells[:, None] - cells, axis=-1)
    return np.asarray(_VARIANCE * np.exp(-distance / _LENGTH))


def model(mean: float, factor: Array, counts: Array) -> None:
    """The NumPyro model: log intensities of the cells, and the counts in them."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    field = numpyro.sample("field", dist.MultivariateNormal(jnp.full(len(factor), mean), scale_tril=factor))
    numpyro.sample("counts", dist.Poisson(jnp.exp(field)), obs=counts)


def cox_process(name: str, counts: Array, *, citation: str) -> Posterior:
    """The target of counts ``(side, side)``; the field's mean is the log of the mean count, less half its variance.

    The prior makes it strongly log-concave, by 1/λ_max(K); its curvature has no upper bound.

    Example:
        >>> cox_process("toy", np.ones((2, 2)), citation="").names
        ('field[0]', 'field[1]', 'field[2]', 'field[3]')
    """
    kernel = covariance(len(counts))
    flat = np.asarray(counts, dtype=np.float64).ravel()
    factor, mean = np.linalg.cholesky(kernel), math.log(flat.mean()) - 0.5 * _VARIANCE
    y = torch.from_numpy(flat)
    prior = MultivariateNormal(torch.full_like(y, mean), scale_tril=torch.from_numpy(factor), validate_args=False)
    constant = torch.lgamma(y + 1).sum()

    def log_density(x: Tensor) -> Tensor:
        likelihood: Tensor = (y * x - x.exp()).sum(-1) - constant
        return likelihood + prior.log_prob(x)

    return Posterior(
        name=name,
        names=tuple(f"field[{i}]" for i in range(len(flat))),
        model=model,
        arguments=(mean, factor, flat),
        log_density=log_density,
        constrain=lambda x: {"field": x},
        citation=citation,
        strong_log_concavity=1.0 / float(np.linalg.eigvalsh(kernel)[-1]),
    )
