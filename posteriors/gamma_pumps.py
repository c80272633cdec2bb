"""Failure rates of ten power-plant pumps with a Gamma prior whose own rate is unknown: d = 11."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from posteriors.regression import Array
from posteriors.target import Posterior

_FAILURES = (5, 1, 5, 14, 3, 19, 1, 1, 4, 22)
_HOURS = (94.320, 15.720, 62.880, 125.760, 5.240, 31.440, 1.048, 1.048, 2.096, 10.480)  # thousands
_SHAPE, _HYPER_SHAPE, _HYPER_RATE = 1.802, 0.1, 1.0


def model(hours: Array, failures: Array) -> None:
    """The NumPyro model."""
    import numpyro
    import numpyro.distributions as dist

    prior_rate = numpyro.sample("prior_rate", dist.Gamma(_HYPER_SHAPE, _HYPER_RATE))
    rates = numpyro.sample("rates", dist.Gamma(_SHAPE, prior_rate).expand([len(hours)]).to_event(1))
    numpyro.sample("failures", dist.Poisson(rates * hours), obs=failures)


def _constrain(x: Any) -> dict[str, Any]:
    positive = torch.exp(x) if isinstance(x, Tensor) else np.exp(x)
    return {"prior_rate": positive[:, 0], "rates": positive[:, 1:]}


def build() -> Posterior:
    """The target in logs of the rates: a sum of linear terms less exponentials of linear terms, so log-concave."""
    hours, failures = np.asarray(_HOURS), np.asarray(_FAILURES, dtype=np.float64)
    time, count = torch.from_numpy(hours), torch.from_numpy(failures)
    shape, hyper = time.new_tensor(_SHAPE), time.new_tensor(_HYPER_SHAPE)
    constant = (count * time.log() - torch.lgamma(count + 1)).sum() - torch.lgamma(hyper)
    constant = constant + hyper * np.log(_HYPER_RATE) - len(hours) * torch.lgamma(shape)

    def log_density(x: Tensor) -> Tensor:
        log_prior, log_rates = x[..., :1], x[..., 1:]
        rates = _SHAPE * log_prior + (_SHAPE + count) * log_rates - (log_prior + log_rates).exp()
        likelihood: Tensor = (rates - time * log_rates.exp()).sum(-1)
        return likelihood + (_HYPER_SHAPE * log_prior - _HYPER_RATE * log_prior.exp()).sum(-1) + constant

    return Posterior(
        name="gamma_pumps",
        names=("prior_rate", *(f"rates[{i}]" for i in range(len(hours)))),
        model=model,
        arguments=(hours, failures),
        log_density=log_density,
        constrain=_constrain,
        citation="Gaver & O'Muircheartaigh 1987, Robust empirical Bayes analyses of event rates, Technometrics 29; "
        "model of Gelfand & Smith 1990, JASA 85",
    )
