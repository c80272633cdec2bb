"""Logistic regression of malignancy on 30 measurements of 569 tumours, with a Laplace prior on the slopes: d = 31."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from torch import Tensor
from torch.distributions import Laplace, Normal
from torch.nn.functional import softplus

from posteriors.regression import Array, by_site, labels, standardised, with_ones
from posteriors.target import Posterior

_INTERCEPT_SCALE, _SLOPE_SCALE = 2.0, 0.5


def model(X: Array, y: Array) -> None:
    """The NumPyro model."""
    import numpyro
    import numpyro.distributions as dist

    intercept = numpyro.sample("intercept", dist.Normal(0.0, _INTERCEPT_SCALE))
    slopes = numpyro.sample("slopes", dist.Laplace(0.0, _SLOPE_SCALE).expand([X.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Bernoulli(logits=intercept + X @ slopes), obs=y)


def build() -> Posterior:
    """The target: log-concave, not strongly; the prior's kink leaves no upper bound."""
    data = load_breast_cancer()
    X, y = standardised(data.data), np.asarray(data.target, dtype=np.float64)
    rows, success = torch.from_numpy(with_ones(X)), torch.from_numpy(y)

    def log_density(x: Tensor) -> Tensor:
        logits, zero = x @ rows.T, x.new_zeros(())
        prior = Normal(zero, _INTERCEPT_SCALE).log_prob(x[..., 0])
        prior = prior + Laplace(zero, _SLOPE_SCALE).log_prob(x[..., 1:]).sum(-1)
        return (success * logits - softplus(logits)).sum(-1) + prior

    return Posterior(
        name="logistic_breast_cancer_laplace",
        names=labels(X.shape[1]),
        model=model,
        arguments=(X, y),
        log_density=log_density,
        constrain=by_site,
        citation="Wolberg, Mangasarian, Street & Street 1995, Breast Cancer Wisconsin (Diagnostic), UCI; "
        "as shipped by scikit-learn",
    )
