"""Sequential logistic regression of the quarter of diabetes progression, in which the thresholds are free: d = 13."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch import Tensor
from torch.distributions import Normal
from torch.nn.functional import logsigmoid

from posteriors.regression import Array, standardised
from posteriors.target import Posterior

_PRIOR_SCALE, _LEVELS = 2.0, 4


def model(X: Array, passed: Array, reached: Array) -> None:
    """The NumPyro model: who reaches a level passes it with log odds ``X @ slopes − threshold`` of the level."""
    import numpyro
    import numpyro.distributions as dist

    thresholds = numpyro.sample("thresholds", dist.Normal(0.0, _PRIOR_SCALE).expand([passed.shape[1]]).to_event(1))
    slopes = numpyro.sample("slopes", dist.Normal(0.0, _PRIOR_SCALE).expand([X.shape[1]]).to_event(1))
    logits = (X @ slopes)[:, None] - thresholds
    with numpyro.handlers.mask(mask=reached):
        numpyro.sample("passed", dist.Bernoulli(logits=logits), obs=passed)


def _by_site(x: Any) -> dict[str, Any]:
    return {"thresholds": x[:, : _LEVELS - 1], "slopes": x[:, _LEVELS - 1 :]}


def build() -> Posterior:
    """The target, a logistic regression of every level that somebody reached.

    −∇² log π lies between 1/s² and 1/s² + λ_max(ZᵀZ)/4, with a row of Z for every level that a patient reached.
    """
    data = load_diabetes()
    X, thresholds = standardised(data.data), _LEVELS - 1
    level = np.searchsorted(np.quantile(data.target, np.arange(1, _LEVELS) / _LEVELS), data.target)
    reached, passed = level[:, None] >= np.arange(thresholds), level[:, None] > np.arange(thresholds)
    patient, step = np.nonzero(reached)
    design = np.column_stack([-np.eye(thresholds)[step], X[patient]])
    rows = torch.from_numpy(np.where(passed[reached], 1.0, -1.0)[:, None] * design)

    def log_density(x: Tensor) -> Tensor:
        return logsigmoid(x @ rows.T).sum(-1) + Normal(x.new_zeros(()), _PRIOR_SCALE).log_prob(x).sum(-1)

    precision = _PRIOR_SCALE**-2
    return Posterior(
        name="ordinal_diabetes",
        names=(*(f"thresholds[{k}]" for k in range(thresholds)), *(f"slopes[{i}]" for i in range(X.shape[1]))),
        model=model,
        arguments=(X, passed.astype(np.float64), reached),
        log_density=log_density,
        constrain=_by_site,
        citation="Efron, Hastie, Johnstone & Tibshirani 2004, Least angle regression, Ann. Stat. 32 (data, as shipped "
        "by scikit-learn); Tutz 1991, Sequential models in categorical regression, CSDA 11",
        strong_log_concavity=precision,
        smoothness=precision + 0.25 * float(np.linalg.eigvalsh(design.T @ design)[-1]),
    )
