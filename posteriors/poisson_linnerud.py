"""Poisson regression of chin-ups on weight, waist and pulse of 20 men: d = 4."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_linnerud
from torch import Tensor
from torch.distributions import Normal

from posteriors.regression import Array, by_site, labels, standardised, with_ones
from posteriors.target import Posterior

_PRIOR_SCALE = 2.0


def model(X: Array, y: Array) -> None:
    """The NumPyro model."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    intercept = numpyro.sample("intercept", dist.Normal(0.0, _PRIOR_SCALE))
    slopes = numpyro.sample("slopes", dist.Normal(0.0, _PRIOR_SCALE).expand([X.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Poisson(jnp.exp(intercept + X @ slopes)), obs=y)


def build() -> Posterior:
    """The target. The prior makes it strongly log-concave; its curvature has no upper bound."""
    data = load_linnerud()
    X, y = standardised(data.target), np.asarray(data.data[:, data.feature_names.index("Chins")], dtype=np.float64)
    rows, counts = torch.from_numpy(with_ones(X)), torch.from_numpy(y)
    constant = torch.lgamma(counts + 1).sum()

    def log_density(x: Tensor) -> Tensor:
        log_rate = x @ rows.T
        likelihood = (counts * log_rate - log_rate.exp()).sum(-1) - constant
        return likelihood + Normal(x.new_zeros(()), _PRIOR_SCALE).log_prob(x).sum(-1)

    return Posterior(
        name="poisson_linnerud",
        names=labels(X.shape[1]),
        model=model,
        arguments=(X, y),
        log_density=log_density,
        constrain=by_site,
        citation="Tenenhaus 1998, La régression PLS (Linnerud's data); as shipped by scikit-learn",
        strong_log_concavity=_PRIOR_SCALE**-2,
    )
