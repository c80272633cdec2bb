"""Probit regression of versicolor against virginica on four measurements of 100 irises: d = 5."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_iris
from torch import Tensor
from torch.distributions import Normal

from posteriors.regression import Array, by_site, labels, standardised, with_ones
from posteriors.target import Posterior

_PRIOR_SCALE = 1.0


def model(X: Array, sign: Array) -> None:
    """The NumPyro model; the likelihood stands in logs, where Φ does not underflow."""
    import numpyro
    import numpyro.distributions as dist
    from jax.scipy.special import log_ndtr

    intercept = numpyro.sample("intercept", dist.Normal(0.0, _PRIOR_SCALE))
    slopes = numpyro.sample("slopes", dist.Normal(0.0, _PRIOR_SCALE).expand([X.shape[1]]).to_event(1))
    numpyro.factor("species", log_ndtr(sign * (intercept + X @ slopes)))


def build() -> Posterior:
    """The target. −∇² log π lies between 1/s² and 1/s² + λ_max(XᵀX): −(log Φ)″ lies between 0 and 1."""
    data = load_iris()
    chosen = data.target > 0
    X, sign = standardised(data.data[chosen]), np.where(data.target[chosen] == 2, 1.0, -1.0)
    design = with_ones(X)
    rows = torch.from_numpy(sign[:, None] * design)

    def log_density(x: Tensor) -> Tensor:
        likelihood = torch.special.log_ndtr(x @ rows.T).sum(-1)
        return likelihood + Normal(x.new_zeros(()), _PRIOR_SCALE).log_prob(x).sum(-1)

    precision = _PRIOR_SCALE**-2
    return Posterior(
        name="probit_iris",
        names=labels(X.shape[1]),
        model=model,
        arguments=(X, sign),
        log_density=log_density,
        constrain=by_site,
        citation="Anderson 1935 and Fisher 1936, Iris; as shipped by scikit-learn",
        strong_log_concavity=precision,
        smoothness=precision + float(np.linalg.eigvalsh(design.T @ design)[-1]),
    )
