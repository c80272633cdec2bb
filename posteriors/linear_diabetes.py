"""Gaussian linear regression of diabetes progression with known noise: d = 11, in closed form."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch import Tensor
from torch.distributions import Normal

from posteriors.regression import Array, by_site, labels, standardised, with_ones
from posteriors.target import Posterior

_PRIOR_SCALE, _NOISE = 1.0, 0.7  # of a response of unit variance


def model(X: Array, y: Array) -> None:
    """The NumPyro model."""
    import numpyro
    import numpyro.distributions as dist

    intercept = numpyro.sample("intercept", dist.Normal(0.0, _PRIOR_SCALE))
    slopes = numpyro.sample("slopes", dist.Normal(0.0, _PRIOR_SCALE).expand([X.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Normal(intercept + X @ slopes, _NOISE), obs=y)


def build() -> Posterior:
    """The target, a Gaussian of precision I/s² + XᵀX/σ²."""
    data = load_diabetes()
    X, y = standardised(data.data), standardised(data.target)
    design = with_ones(X)
    rows, response = torch.from_numpy(design), torch.from_numpy(y)

    def log_density(x: Tensor) -> Tensor:
        likelihood = Normal(x @ rows.T, _NOISE).log_prob(response).sum(-1)
        return likelihood + Normal(x.new_zeros(()), _PRIOR_SCALE).log_prob(x).sum(-1)

    precision = np.eye(design.shape[1]) / _PRIOR_SCALE**2 + design.T @ design / _NOISE**2
    values = np.linalg.eigvalsh(precision)
    return Posterior(
        name="linear_diabetes",
        names=labels(X.shape[1]),
        model=model,
        arguments=(X, y),
        log_density=log_density,
        constrain=by_site,
        citation="Efron, Hastie, Johnstone & Tibshirani 2004, Least angle regression, Ann. Stat. 32; "
        "as shipped by scikit-learn",
        strong_log_concavity=float(values[0]),
        smoothness=float(values[-1]),
        mean=np.asarray(np.linalg.solve(precision, design.T @ y / _NOISE**2), dtype=np.float64),
        covariance=np.asarray(np.linalg.inv(precision), dtype=np.float64),
    )
