"""Log-determinants of Hessians: exact by Cholesky, stochastic by Lanczos and CG, and the faster one to train on."""

from __future__ import annotations

import itertools
from typing import Any, Literal

import torch
from torch import Tensor

from ot_lift.constrained import BoundPotential
from ot_lift.errors import ConvergenceError
from ot_lift.hessians import block_rows
from ot_lift.logdet_stochastic import (
    Lanczos,
    LogDetSurrogate,
    StochasticLogDet,
    at_points,
    attach,
    default_tolerance,
    log_det_surrogate,
    rademacher,
    stochastic_log_det,
)
from ot_lift.potentials import Potential

__all__ = [
    "SOLVE_COST",
    "STOCHASTIC_FROM",
    "LogDetMethod",
    "LogDetSurrogate",
    "StochasticLogDet",
    "exact_log_det",
    "log_det_for_training",
    "log_det_surrogate",
    "stochastic_log_det",
    "value_gradient_log_det",
]

LogDetMethod = Literal["auto", "exact", "stochastic"]

# From this dimension on a stochastic training step is faster than an exact one (benchmarks/log_determinant.py).
STOCHASTIC_FROM = 12

# Solving by factorisation costs about so many CG steps a dimension (benchmarks/log_determinant.py).
SOLVE_COST = 0.5


def value_gradient_log_det(potential: Potential, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """φ(x), ∇φ(x) and the exact log det ∇²φ(x) in one sweep, differentiable in the parameters and in x.

    The Hessian is factored by Cholesky. Rows that fail in single precision, by rounding, are evaluated and factored
    again in double. The derivative is tr(H⁻¹dH): the factors are not differentiated.

    Args:
        potential: a strongly convex potential.
        x: points, ``(n, features)``.

    Returns:
        φ ``(n,)``, ∇φ ``(n, features)`` and log det ∇²φ ``(n,)``, in the dtype of ``x``.

    Raises:
        ConvergenceError: if a Hessian is not positive definite in double precision either.
        ValueError: if the shape of ``x`` is not ``(n, features)``.

    Example:
        >>> from ot_lift.potentials import Quadratic
        >>> phi = Quadratic(2)
        >>> phi.set_quadratic_(torch.tensor([[2.0, 1.0], [1.0, 3.0]]))
        >>> value, gradient, log_det = value_gradient_log_det(phi, torch.ones(1, 2))
        >>> round(value.item(), 4), gradient.shape, round(log_det.exp().item(), 4)
        (3.5, torch.Size([1, 2]), 5.0)
    """
    potential = at_points(potential, x)
    rows = block_rows(x)
    if torch.is_grad_enabled() or len(x) <= rows:
        value, gradient, hessian = potential.value_gradient_hessian(x)
        return value, gradient, _LogDet.apply(hessian, _factor(potential, x, hessian))
    blocks = [
        value_gradient_log_det(potential.at_rows(slice(k * rows, (k + 1) * rows)), block)
        for k, block in enumerate(x.split(rows))
    ]
    value, gradient, log_det = (torch.cat(parts) for parts in zip(*blocks, strict=True))
    return value, gradient, log_det


def exact_log_det(potential: Potential, x: Tensor) -> Tensor:
    """Log det ∇²φ(x), shape ``(n,)``: the last of :func:`value_gradient_log_det`, with the same errors.

    Args:
        potential: a strongly convex potential.
        x: points, ``(n, features)``.

    Example:
        >>> from ot_lift.potentials import Quadratic
        >>> phi = Quadratic(3)
        >>> phi.set_quadratic_(2 * torch.eye(3))
        >>> round(exact_log_det(phi, torch.zeros(1, 3)).item(), 5)  # 3 log 2
        2.07944
    """
    return value_gradient_log_det(potential, x)[2]


def log_det_for_training(
    potential: Potential, x: Tensor, *, method: LogDetMethod = "auto", generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """φ(x), ∇φ(x) and a log det ∇²φ(x) to train on: its derivative is exact, or an unbiased estimate of the exact one.

    ``"exact"`` is :func:`value_gradient_log_det`. ``"stochastic"`` is :func:`log_det_surrogate` at its default
    tolerance, except that points whose conjugate gradients would take longer than a factorisation are solved for by
    factorisation: every solve has converged, however ill-conditioned. Its numbers are then exact for those points and
    the estimate of one Lanczos run elsewhere; a density to report takes :func:`exact_log_det`.

    Args:
        potential: a strongly convex potential.
        x: points, ``(n, features)``.
        method: ``"exact"``, ``"stochastic"``, or ``"auto"``: stochastic from `STOCHASTIC_FROM` dimensions on.
        generator: source of the stochastic method's probes; the exact one draws nothing.

    Returns:
        φ ``(n,)``, ∇φ ``(n, features)`` and log det ∇²φ ``(n,)``.

    Raises:
        ConvergenceError: if a Hessian is factored and is not positive definite.
        ValueError: for a method that does not exist or an ``x`` of another shape.

    Example:
        >>> from ot_lift.potentials import Quadratic
        >>> phi = Quadratic(2)  # Q = LL′ at L = I: log det Q = 0, and its derivative in L is 2I
        >>> generator = torch.Generator().manual_seed(0)
        >>> for method in ("exact", "stochastic"):
        ...     log_det = log_det_for_training(phi, torch.zeros(1, 2), method=method, generator=generator)[2]
        ...     print(abs(round(log_det.item(), 4)), torch.autograd.grad(log_det.sum(), phi.factor)[0].diagonal())
        0.0 tensor([2., 2.])
        0.0 tensor([2., 2.])
    """
    if method not in ("auto", "exact", "stochastic"):
        raise ValueError(f"expected method 'auto', 'exact' or 'stochastic', got {method!r}")
    if method == "exact" or (method == "auto" and potential.features < STOCHASTIC_FROM):
        return value_gradient_log_det(potential, x)
    potential = at_points(potential, x)
    value, gradient, product = potential.linearise(x)
    probe = rademacher(x, generator)
    with torch.no_grad():
        lanczos, tol = Lanczos(product, probe, x.shape[1]), default_tolerance(x)
        lanczos.run(tol, solve_cost=SOLVE_COST * x.shape[1])
        solution, failed = lanczos.solution(), ~(lanczos.residual <= tol)
        log_det = lanczos.log_quadrature(potential.strong_convexity).to(x.dtype)
        if bool(failed.any()):
            hard = potential.at_rows(failed)
            factor = _factor(hard, x[failed], hard.hessian(x[failed]))
            solution[failed] = torch.cholesky_solve(probe[failed][..., None].to(factor), factor).squeeze(2).to(x.dtype)
            log_det[failed] = _log_det_of(factor).to(x.dtype)
    return value, gradient, attach(product, probe, solution, log_det)[0]


class _LogDet(torch.autograd.Function):
    """Log det H from a factor of H, with H⁻¹ as its derivative."""

    @staticmethod
    def forward(ctx: Any, hessian: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(hessian, factor)
        return _log_det_of(factor)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        hessian, factor = ctx.saved_tensors
        # The inverse from the factor has no graph: one is wanted for a second derivative only.
        inverse = torch.linalg.inv(hessian) if torch.is_grad_enabled() else torch.cholesky_inverse(factor)
        return cotangent[:, None, None] * inverse, None


def _log_det_of(factor: Tensor) -> Tensor:
    return 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


@torch.no_grad()
def _factor(potential: Potential, x: Tensor, hessian: Tensor) -> Tensor:
    """Lower Cholesky factors of the Hessians at x; rows that fail are evaluated and factored again in float64."""
    factor, failed = _try_factor(hessian)
    count = int(failed.sum())
    if count and x.dtype != torch.float64:
        again, lost = _try_factor(_in_double(potential.at_rows(failed)).hessian(x[failed].double()))
        factor[failed] = again.to(factor)
        count = int(lost.sum())
    if count:
        raise ConvergenceError(
            f"log det: expected Hessians that are positive definite in double precision, got {count} of {len(x)} that "
            "are not; check that points and weights are finite, lower the learning rate or raise strong_convexity"
        )
    return factor


def _try_factor(hessian: Tensor) -> tuple[Tensor, Tensor]:
    """Factors, and which of them are of no use."""
    factor, info = torch.linalg.cholesky_ex(hessian)
    return factor, (info != 0) | ~factor.diagonal(dim1=-2, dim2=-1).isfinite().all(-1)


def _in_double(potential: Potential) -> Potential:
    """The potential with every tensor cast to float64; the original stays as it is."""
    module, swapped = potential, {}
    if isinstance(potential, BoundPotential):  # what is bound comes before the module's own
        module = potential._potential
        swapped = {name.removeprefix("module."): weight for name, weight in potential._swapped.items()}
    kinds = (module.named_parameters, module.named_buffers)
    tensors = dict(itertools.chain.from_iterable(kind(remove_duplicate=False) for kind in kinds)) | swapped
    return BoundPotential(module, {name: t.double() for name, t in tensors.items() if t.is_floating_point()})
