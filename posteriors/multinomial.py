"""What the multinomial logistic regressions of the catalogue share: model, density and bounds, for any data."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal
from torch.nn.functional import one_hot, softplus

from posteriors.regression import Array, with_ones
from posteriors.target import Posterior

_PRIOR_SCALE = 1.0
_EXACT = 40.0  # softplus(x) is x to float64 from here


def model(design: Array, y: Array) -> None:
    """The NumPyro model: a column of weights for every class but the first, whose logit is 0."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    shape = [design.shape[1], int(y.max())]
    weights = numpyro.sample("weights", dist.Normal(0.0, _PRIOR_SCALE).expand(shape).to_event(2))
    logits = jnp.pad(design @ weights, ((0, 0), (1, 0)))
    numpyro.sample("y", dist.Categorical(logits=logits), obs=y)


def multinomial(name: str, X: Array, y: Array, *, citation: str) -> Posterior:
    """The target of standardised columns ``X`` and classes ``y``, 0 to K − 1.

    −∇² log π lies between 1/s² and 1/s² + λ_max(XᵀX)/2, s the scale of the prior (Böhning 1992).

    Example:
        >>> target = multinomial("toy", np.zeros((3, 1)), np.array([0, 1, 2]), citation="")
        >>> target.dim, target.names[1]
        (4, 'weights[0,1]')
    """
    design = with_ones(X)
    shape = (design.shape[1], int(y.max()))
    columns = torch.from_numpy(design).T.contiguous()
    totals = columns @ one_hot(torch.from_numpy(y).long())[:, 1:].double()  # of the rows of every class

    def log_density(x: Tensor) -> Tensor:
        weights = x.unflatten(-1, shape)
        # Rows last, so that sums over classes run along them; log(1 + Σ exp) is softplus of log Σ exp.
        normalisers = softplus(torch.logsumexp(weights.mT @ columns, -2), threshold=_EXACT)
        likelihood = (totals * weights).sum((-2, -1)) - normalisers.sum(-1)
        return likelihood + Normal(x.new_zeros(()), _PRIOR_SCALE).log_prob(x).sum(-1)

    precision = _PRIOR_SCALE**-2
    return Posterior(
        name=name,
        names=tuple(f"weights[{i},{j}]" for i, j in np.ndindex(*shape)),
        model=model,
        arguments=(design, y),
        log_density=log_density,
        constrain=lambda x: {"weights": x.reshape(-1, *shape)},
        citation=citation,
        strong_log_concavity=precision,
        smoothness=precision + 0.5 * float(np.linalg.eigvalsh(design.T @ design)[-1]),
    )
