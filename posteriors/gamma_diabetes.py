"""Gamma regression of diabetes progression with known shape and a log link: d = 11."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch import Tensor
from torch.distributions import Normal

from posteriors.regression import Array, by_site, labels, standardised, with_ones
from posteriors.target import Posterior

_PRIOR_SCALE, _SHAPE = 1.0, 7.0  # a coefficient of variation of 0.38: that of the residuals


def model(X: Array, y: Array) -> None:
    """The NumPyro model: log means are linear in X."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    intercept = numpyro.sample("intercept", dist.Normal(0.0, _PRIOR_SCALE))
    slopes = numpyro.sample("slopes", dist.Normal(0.0, _PRIOR_SCALE).expand([X.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Gamma(_SHAPE, _SHAPE / jnp.exp(intercept + X @ slopes)), obs=y)


def build() -> Posterior:
    """The target. The prior makes it strongly log-concave; its curvature has no upper bound."""
    data = load_diabetes()
    X, y = standardised(data.data), np.asarray(data.target / data.target.mean(), dtype=np.float64)
    rows, response = torch.from_numpy(with_ones(X)), torch.from_numpy(y)
    shape = response.new_tensor(_SHAPE)
    constant = ((shape - 1) * response.log()).sum() + len(y) * (shape * shape.log() - torch.lgamma(shape))

    def log_density(x: Tensor) -> Tensor:
        log_mean = x @ rows.T
        likelihood = -_SHAPE * (log_mean + response * (-log_mean).exp()).sum(-1) + constant
        return likelihood + Normal(x.new_zeros(()), _PRIOR_SCALE).log_prob(x).sum(-1)

    return Posterior(
        name="gamma_diabetes",
        names=labels(X.shape[1]),
        model=model,
        arguments=(X, y),
        log_density=log_density,
        constrain=by_site,
        citation="Efron, Hastie, Johnstone & Tibshirani 2004, Least angle regression, Ann. Stat. 32 (data, as shipped "
        "by scikit-learn); McCullagh & Nelder 1989, Generalized linear models, ch. 8",
        strong_log_concavity=_PRIOR_SCALE**-2,
    )
