"""Negative binomial regression of sit-ups on weight, waist and pulse of 20 men, with known dispersion: d = 4."""

from __future__ import annotations

import math

import numpy as np
import torch
from sklearn.datasets import load_linnerud
from torch import Tensor
from torch.distributions import NegativeBinomial, Normal

from posteriors.regression import Array, by_site, labels, standardised, with_ones
from posteriors.target import Posterior

_PRIOR_SCALE, _CONCENTRATION = 2.0, 5.0


def model(X: Array, y: Array) -> None:
    """The NumPyro model."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    intercept = numpyro.sample("intercept", dist.Normal(0.0, _PRIOR_SCALE))
    slopes = numpyro.sample("slopes", dist.Normal(0.0, _PRIOR_SCALE).expand([X.shape[1]]).to_event(1))
    numpyro.sample("y", dist.NegativeBinomial2(jnp.exp(intercept + X @ slopes), _CONCENTRATION), obs=y)


def build() -> Posterior:
    """The target. A count y curves the log density of its log rate by at most (y + r)/4, r the concentration."""
    data = load_linnerud()
    X, y = standardised(data.target), np.asarray(data.data[:, data.feature_names.index("Situps")], dtype=np.float64)
    design = with_ones(X)
    rows, counts = torch.from_numpy(design), torch.from_numpy(y)

    def log_density(x: Tensor) -> Tensor:
        logits = x @ rows.T - math.log(_CONCENTRATION)
        likelihood = NegativeBinomial(counts.new_tensor(_CONCENTRATION), logits=logits).log_prob(counts).sum(-1)
        return likelihood + Normal(x.new_zeros(()), _PRIOR_SCALE).log_prob(x).sum(-1)

    precision = _PRIOR_SCALE**-2
    return Posterior(
        name="negative_binomial_linnerud",
        names=labels(X.shape[1]),
        model=model,
        arguments=(X, y),
        log_density=log_density,
        constrain=by_site,
        citation="Tenenhaus 1998, La régression PLS (Linnerud's data); as shipped by scikit-learn",
        strong_log_concavity=precision,
        smoothness=precision
        + 0.25 * float(np.linalg.eigvalsh(design.T @ ((y + _CONCENTRATION)[:, None] * design))[-1]),
    )
