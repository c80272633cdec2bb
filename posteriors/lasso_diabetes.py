"""Bayesian lasso of diabetes progression with known noise and a Laplace prior on the slopes: d = 11."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch import Tensor
from torch.distributions import Laplace, Normal

from posteriors.regression import Array, by_site, labels, standardised, with_ones
from posteriors.target import Posterior

_INTERCEPT_SCALE, _SLOPE_SCALE, _NOISE = 1.0, 0.1, 0.7  # of a response of unit variance


def model(X: Array, y: Array) -> None:
    """The NumPyro model."""
    import numpyro
    import numpyro.distributions as dist

    intercept = numpyro.sample("intercept", dist.Normal(0.0, _INTERCEPT_SCALE))
    slopes = numpyro.sample("slopes", dist.Laplace(0.0, _SLOPE_SCALE).expand([X.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Normal(intercept + X @ slopes, _NOISE), obs=y)


def build() -> Posterior:
    """The target. The likelihood alone makes it strongly log-concave; the prior's kink leaves no upper bound."""
    data = load_diabetes()
    X, y = standardised(data.data), standardised(data.target)
    design = with_ones(X)
    rows, response = torch.from_numpy(design), torch.from_numpy(y)

    def log_density(x: Tensor) -> Tensor:
        likelihood = Normal(x @ rows.T, _NOISE).log_prob(response).sum(-1)
        intercept = Normal(x.new_zeros(()), _INTERCEPT_SCALE).log_prob(x[..., 0])
        return likelihood + intercept + Laplace(x.new_zeros(()), _SLOPE_SCALE).log_prob(x[..., 1:]).sum(-1)

    return Posterior(
        name="lasso_diabetes",
        names=labels(X.shape[1]),
        model=model,
        arguments=(X, y),
        log_density=log_density,
        constrain=by_site,
        citation="Park & Casella 2008, The Bayesian lasso, JASA 103; data of Efron et al. 2004, as shipped by "
        "scikit-learn",
        strong_log_concavity=float(np.linalg.eigvalsh(design.T @ design)[0]) / _NOISE**2,
    )
