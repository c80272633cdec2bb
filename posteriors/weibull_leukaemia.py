"""Weibull survival of 42 leukaemia patients in remission, under 6-MP or a placebo, with known shape: d = 2."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal

from posteriors.regression import Array, by_site, labels, with_ones
from posteriors.target import Posterior

_PRIOR_SCALE, _SHAPE = 5.0, 1.4

# Weeks of remission; negative: still in remission when last seen.
_TREATED = (6, 6, 6, -6, 7, -9, 10, -10, -11, 13, 16, -17, -19, -20, 22, 23, -25, -32, -32, -34, -35)
_PLACEBO = (1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23)


def model(X: Array, weeks: Array, ended: Array) -> None:
    """The NumPyro model: log scales are linear in X; who was last seen in remission enters by the survival function."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    intercept = numpyro.sample("intercept", dist.Normal(0.0, _PRIOR_SCALE))
    slopes = numpyro.sample("slopes", dist.Normal(0.0, _PRIOR_SCALE).expand([X.shape[1]]).to_event(1))
    scale = jnp.exp(intercept + X @ slopes)
    density = dist.Weibull(scale, _SHAPE).log_prob(weeks)
    numpyro.factor("weeks", jnp.where(ended, density, -((weeks / scale) ** _SHAPE)))


def build() -> Posterior:
    """The target. The prior makes it strongly log-concave; its curvature has no upper bound."""
    times = np.asarray([*_TREATED, *_PLACEBO], dtype=np.float64)
    X = np.repeat([1.0, 0.0], [len(_TREATED), len(_PLACEBO)])[:, None]
    weeks, ended = np.abs(times), times > 0
    rows, log_weeks, event = torch.from_numpy(with_ones(X)), torch.from_numpy(np.log(weeks)), torch.from_numpy(ended)

    def log_density(x: Tensor) -> Tensor:
        excess = _SHAPE * (log_weeks - x @ rows.T)  # log (t/λ)ᵏ
        hazard = np.log(_SHAPE) + excess - log_weeks
        likelihood = (torch.where(event, hazard, 0.0) - excess.exp()).sum(-1)
        return likelihood + Normal(x.new_zeros(()), _PRIOR_SCALE).log_prob(x).sum(-1)

    return Posterior(
        name="weibull_leukaemia",
        names=labels(1),
        model=model,
        arguments=(X, weeks, ended),
        log_density=log_density,
        constrain=by_site,
        citation="Freireich et al. 1963, The effect of 6-mercaptopurine on the duration of steroid-induced remissions "
        "in acute leukemia, Blood 21",
        strong_log_concavity=_PRIOR_SCALE**-2,
    )
