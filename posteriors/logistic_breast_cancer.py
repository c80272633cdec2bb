"""Logistic regression of malignancy on 30 measurements of 569 tumours, with a Gaussian prior: d = 31."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from torch import Tensor
from torch.distributions import Normal
from torch.nn.functional import softplus

from posteriors.regression import Array, by_site, labels, standardised, with_ones
from posteriors.target import Posterior

_PRIOR_SCALE = 1.0


def model(X: Array, y: Array) -> None:
    """The NumPyro model."""
    import numpyro
    import numpyro.distributions as dist

    intercept = numpyro.sample("intercept", dist.Normal(0.0, _PRIOR_SCALE))
    slopes = numpyro.sample("slopes", dist.Normal(0.0, _PRIOR_SCALE).expand([X.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Bernoulli(logits=intercept + X @ slopes), obs=y)


def build() -> Posterior:
    """The target. −∇² log π lies between 1/s² and 1/s² + λ_max(XᵀX)/4, s the scale of the prior."""
    data = load_breast_cancer()
    X, y = standardised(data.data), np.asarray(data.target, dtype=np.float64)
    design = with_ones(X)
    rows, success = torch.from_numpy(design), torch.from_numpy(y)

    def log_density(x: Tensor) -> Tensor:
        logits = x @ rows.T
        return (success * logits - softplus(logits)).sum(-1) + Normal(x.new_zeros(()), _PRIOR_SCALE).log_prob(x).sum(-1)

    precision = _PRIOR_SCALE**-2
    return Posterior(
        name="logistic_breast_cancer",
        names=labels(X.shape[1]),
        model=model,
        arguments=(X, y),
        log_density=log_density,
        constrain=by_site,
        citation="Wolberg, Mangasarian, Street & Street 1995, Breast Cancer Wisconsin (Diagnostic), UCI; "
        "as shipped by scikit-learn",
        strong_log_concavity=precision,
        smoothness=precision + 0.25 * float(np.linalg.eigvalsh(design.T @ design)[-1]),
    )
