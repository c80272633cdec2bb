"""The covariance between what a weight is made from and what pulls at it, over batches at a fixed iterate.

A constrained weight is ψ(θ). Where θ depends on the batch X, its fluctuation and that of the gradient ∂L(X)/∂b in the
slack b, which enters θ as it stands, can go together: Σ = Cov(θ(X), ∂L(X)/∂b). Where θ is the same for every batch, Σ
is exactly zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.experiments.energies import Data
from ot_lift.constrained import Constrained
from ot_lift.positivity import Softplus, marked_parameters

_SHUFFLES = 200
_LEVEL = 0.95


@dataclass(frozen=True)
class Covariance:
    """Σ, `(p, p)` for p constrained weights, in three numbers.

    Attributes:
        norm: its Frobenius norm.
        null: the 95% level of the norm when the gradients are dealt to other batches.
        trace: Σᵢ Cov(θᵢ, ∂L/∂bᵢ).

    Example:
        >>> moves = torch.tensor([[1.0], [-1.0]])
        >>> found = Covariance.of(moves, 3 * moves)
        >>> found.norm, found.trace
        (6.0, 6.0)
    """

    norm: float
    null: float
    trace: float

    @classmethod
    def of(cls, theta: Tensor, gradients: Tensor, *, seed: int = 0) -> Covariance:
        """From one row a batch, both `(k, p)`; no p × p matrix is formed: ‖AᵀB‖² = ⟨AAᵀ, BBᵀ⟩."""
        a, b = (_centred(rows) for rows in (theta, gradients))
        first, second = a @ a.T, b @ b.T
        generator = torch.Generator().manual_seed(seed)
        orders = [torch.randperm(len(a), generator=generator) for _ in range(_SHUFFLES)]
        norms = torch.stack([_norm(first, second[order][:, order]) for order in orders])
        degrees = len(a) - 1
        return cls(
            norm=float(_norm(first, second)) / degrees,
            null=float(torch.quantile(norms, _LEVEL)) / degrees,
            trace=float((a * b).sum()) / degrees,
        )


def _norm(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).sum().clamp_min(0).sqrt()


def _centred(rows: Tensor) -> Tensor:
    """Rows less their mean, in float64; equal rows give exact zeros."""
    moves = rows.double() - rows[0].double()
    return moves - moves.mean(0)


def probe(
    model: Constrained,
    data: Data,
    next_batch: Callable[[], Tensor],
    condition: Callable[[Tensor], Tensor],
    *,
    probes: int,
) -> Covariance:
    """Σ at the model as it is, over fresh batches.

    Args:
        model: Through softplus; not changed.
        data: Gives the loss.
        next_batch: `(n, 1)`.
        condition: What a lift emits from, given the batch.
        probes: How many batches.
    """
    names = list(marked_parameters(model.bake(data.training[:1])))
    softplus, theta, gradients = Softplus(), [], []
    for _ in range(probes):
        batch = next_batch()
        with torch.no_grad():
            weights = {name: weight.clone() for name, weight in model.weights(condition(batch)).items()}
        marked = [weights[name].requires_grad_() for name in names]
        found = torch.autograd.grad(data.loss(model.bind(weights), batch), marked)
        with torch.no_grad():
            raw = [softplus.right_inverse(weight) for weight in marked]
            slopes = [torch.sigmoid(one) for one in raw]
        theta.append(torch.cat([one.reshape(-1) for one in raw]))
        gradients.append(torch.cat([(g * slope).reshape(-1) for g, slope in zip(found, slopes, strict=True)]))
    return Covariance.of(torch.stack(theta), torch.stack(gradients))
