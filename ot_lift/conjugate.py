"""Convex conjugation: argmax over x of ⟨x, y⟩ − φ(x), the inverse of ∇φ, with a record of how well it went."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ot_lift.errors import ConvergenceError
from ot_lift.potentials import Potential

Method = Literal["auto", "newton", "newton-cg"]

# Above this dimension Hessian-vector products beat the full Hessian (benchmarks/throughput.py prints both).
NEWTON_CG_FROM = 96

_ARMIJO = 1e-4
_SHORTEST_STEP = 2.0**-40


@dataclass(frozen=True)
class Conjugate:
    """Result of :func:`conjugate` for m points.

    Attributes:
        value: φ*(y) = ⟨x̂, y⟩ − φ(x̂), shape ``(m,)``; a lower bound that ``residual`` makes two-sided.
        argmax: x̂ = ∇φ*(y), shape ``(m, features)``.
        residual: ‖∇φ(x̂) − y‖∞, shape ``(m,)``. For strong convexity μ, ‖x̂ − x*‖₂ ≤ √d·residual/μ.
        steps: accepted Newton steps, shape ``(m,)``, int64.
        converged: residual ≤ tol, shape ``(m,)``, bool.
    """

    value: Tensor
    argmax: Tensor
    residual: Tensor
    steps: Tensor
    converged: Tensor


def conjugate(
    potential: Potential,
    y: Tensor,
    x0: Tensor | None = None,
    *,
    tol: float | None = None,
    max_steps: int = 200,
    method: Method = "auto",
    throw: bool = True,
) -> Conjugate:
    r"""φ*(y) = max over x of ⟨x, y⟩ − φ(x) by safeguarded Newton, all points at once.

    Every point has its own step length (Armijo backtracking on the convex objective φ(x) − ⟨x, y⟩) and leaves the
    batch once converged. Moderate dimensions factor the exact Hessian; large ones solve for the step by conjugate
    gradients on Hessian-vector products. With autograd enabled ``value`` is differentiable in ``y`` and in the
    parameters by the envelope theorem and ``argmax`` by the implicit function theorem,
    :math:`\partial\hat x/\partial w = -H^{-1}\partial_w\nabla\varphi`.

    Args:
        potential: a strongly convex potential.
        y: points of shape ``(m, features)``; the result has their dtype.
        x0: where to start, ``(m, features)`` (default: ``y``). A row that is not finite starts at ``y``.
        tol: on ‖∇φ(x̂) − y‖∞ (default: 1e-9 in float64, 1e-4 in float32, at most 64 roundings of the data).
        max_steps: evaluations per point before it is given up.
        method: ``"newton"``, ``"newton-cg"`` or ``"auto"`` (by dimension).
        throw: raise if a point has not converged; else say so in the record.

    Returns:
        A :class:`Conjugate`.

    Raises:
        ConvergenceError: if ``throw`` and a point did not converge.
        ValueError: for shapes that do not match or a method that does not exist.

    Example:
        >>> from ot_lift.potentials import Quadratic
        >>> phi = Quadratic(2)  # ½‖x‖² is its own conjugate
        >>> y = torch.tensor([[3.0, 4.0]])
        >>> conjugate(phi, y).value.detach()
        tensor([12.5000])
    """
    if y.ndim != 2 or y.shape[1] != potential.features:
        raise ValueError(f"expected y of shape (m, {potential.features}), got {tuple(y.shape)}")
    if x0 is not None and x0.shape != y.shape:
        raise ValueError(f"expected x0 of the shape of y, {tuple(y.shape)}, got {tuple(x0.shape)}")
    if method not in ("auto", "newton", "newton-cg"):
        raise ValueError(f"expected method 'auto', 'newton' or 'newton-cg', got {method!r}")
    if method == "auto":
        method = "newton" if potential.features < NEWTON_CG_FROM else "newton-cg"
    direction = _newton_direction if method == "newton" else _newton_cg_direction
    with torch.no_grad():
        tolerances = _tolerances(y, tol)
        search = _Search(potential, y.detach(), y.detach() if x0 is None else x0.detach(), tolerances)
        search.run(direction, max_steps)
    record = search.record()
    if throw and not bool(record.converged.all()):
        _raise(record, tolerances)
    if torch.is_grad_enabled():
        return _differentiable(potential, y, record, direction)
    return record


def _tolerances(y: Tensor, tol: float | None) -> Tensor:
    """Per-point tolerance: what was asked for, but never below what rounding allows for |y|."""
    asked = tol if tol is not None else (1e-9 if y.dtype == torch.float64 else 1e-4)
    floor = 64 * torch.finfo(y.dtype).eps * y.abs().amax(1).clamp_min(1.0)
    return floor if asked <= 0 else floor.clamp_min(asked)


def _raise(record: Conjugate, tolerances: Tensor) -> None:
    failed = (~record.converged).nonzero().squeeze(1)
    worst = float(record.residual[failed].max())
    raise ConvergenceError(
        f"conjugation did not converge for {len(failed)} of {len(record.converged)} points: expected residual <= "
        f"{float(tolerances.max()):.1e}, got up to {worst:.1e}; raise max_steps or tol, use float64, or pass "
        "throw=False to get the record with converged=False at these points"
    )


class _Search:
    """State of all points; `active` indexes those still searching."""

    def __init__(self, potential: Potential, y: Tensor, x0: Tensor, tolerances: Tensor) -> None:
        self.potential, self.y, self.tolerances = potential, y, tolerances
        self.x = torch.where(torch.isfinite(x0).all(1, keepdim=True), x0.to(y), y).clone()
        self.value, self.gradient = (part.clone() for part in self._objective(self.x, y))
        self.residual = self.gradient.abs().amax(1)
        self.steps = torch.zeros(len(y), dtype=torch.int64, device=y.device)

    def _objective(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self.potential.value_gradient(x)
        return value - (x * y).sum(1), gradient - y

    def run(self, direction: Callable[[Potential, Tensor, Tensor], Tensor], max_steps: int) -> None:
        active = (~(self.residual <= self.tolerances)).nonzero().squeeze(1)
        if len(active) == 0 or max_steps < 1:
            return
        move = direction(self.potential, self.x[active], self.gradient[active])
        length = torch.ones(len(active), dtype=self.y.dtype, device=self.y.device)
        for _ in range(max_steps):
            accepted = self._try(active, move, length)
            length = torch.where(accepted, 1.0, 0.5 * length)
            going = ~(self.residual[active] <= self.tolerances[active]) & (length > _SHORTEST_STEP)
            if not bool(going.any()):
                return
            fresh = accepted[going]
            active, move, length = active[going], move[going], length[going]
            if bool(fresh.all()):
                move = direction(self.potential, self.x[active], self.gradient[active])
            elif bool(fresh.any()):
                rows = active[fresh]
                move[fresh] = direction(self.potential, self.x[rows], self.gradient[rows])

    def _try(self, active: Tensor, move: Tensor, length: Tensor) -> Tensor:
        """One trial per active point; those that decrease the objective enough move."""
        trial = self.x[active] + length[:, None] * move
        value, gradient = self._objective(trial, self.y[active])
        before = self.value[active]
        slope = (self.gradient[active] * move).sum(1)
        rounding = 16 * torch.finfo(value.dtype).eps * (1 + before.abs() + (trial * self.y[active]).sum(1).abs())
        residual = gradient.abs().amax(1)
        # Within rounding of the minimum values no longer tell better from worse, but residuals still do.
        near = (value <= before + rounding) & (residual < self.residual[active])
        accepted = torch.isfinite(value) & ((value <= before + _ARMIJO * length * slope) | near)
        rows = active[accepted]
        self.x[rows], self.value[rows] = trial[accepted], value[accepted]
        self.gradient[rows], self.residual[rows] = gradient[accepted], residual[accepted]
        self.steps[rows] += 1
        return accepted

    def record(self) -> Conjugate:
        return Conjugate(-self.value, self.x, self.residual, self.steps, self.residual <= self.tolerances)


def _newton_direction(potential: Potential, x: Tensor, gradient: Tensor) -> Tensor:
    return solve_hessian(potential.hessian(x), -gradient)


def solve_hessian(hessian: Tensor, right: Tensor) -> Tensor:
    """H⁻¹·right row by row by Cholesky; rows that fail in float32 are redone in float64 with a rounding's jitter.

    Args:
        hessian: positive definite, ``(n, d, d)``.
        right: ``(n, d)``.

    Returns:
        ``(n, d)``.

    Example:
        >>> solve_hessian(2 * torch.eye(2)[None], torch.tensor([[2.0, 4.0]]))
        tensor([[1., 2.]])
    """
    factor, info = torch.linalg.cholesky_ex(hessian)
    solution = torch.cholesky_solve(right[..., None], factor).squeeze(-1)
    if bool((info > 0).any()):
        bad = info > 0
        matrix = hessian[bad].double()
        scale = matrix.diagonal(dim1=1, dim2=2).abs().amax(1).clamp_min(torch.finfo(torch.float64).tiny)
        jitter = 4 * torch.finfo(hessian.dtype).eps * hessian.shape[-1] * scale
        matrix = matrix + torch.diag_embed(jitter[:, None].expand(-1, matrix.shape[-1]))
        solution[bad] = torch.linalg.solve(matrix, right[bad].double()).to(right)
    return solution


def _newton_cg_direction(potential: Potential, x: Tensor, gradient: Tensor) -> Tensor:
    product = potential.linearise(x)[2]
    # Forcing term min(½, √‖g‖)·‖g‖ gives superlinear convergence (Nocedal & Wright 2006, section 7.1).
    norm = gradient.norm(dim=1)
    return conjugate_gradients(product, -gradient, tol=norm * norm.sqrt().clamp_max(0.1))


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], right: Tensor, *, tol: Tensor, max_steps: int | None = None
) -> Tensor:
    """Solve A·s = right row by row for positive definite A given as a batched product.

    Args:
        product: v ``(n, d)`` ↦ Av ``(n, d)``.
        right: ``(n, d)``.
        tol: ``(n,)``, on ‖A·s − right‖₂.
        max_steps: default ``4 d``.

    Returns:
        ``(n, d)``.

    Example:
        >>> conjugate_gradients(lambda v: 2 * v, torch.tensor([[2.0, 4.0]]), tol=torch.tensor([1e-6]))
        tensor([[1., 2.]])
    """
    solution = torch.zeros_like(right)
    residual = right.clone()
    direction = right.clone()
    square = residual.square().sum(1)
    for _ in range(max_steps or 4 * right.shape[1]):
        going = square.sqrt() > tol
        if not bool(going.any()):
            break
        image = product(direction)
        step = torch.where(going, square / (direction * image).sum(1), 0.0)
        solution = solution + step[:, None] * direction
        residual = residual - step[:, None] * image
        fresh = residual.square().sum(1)
        direction = residual + torch.where(going, fresh / square, 0.0)[:, None] * direction
        square = torch.where(going, fresh, square)
    return solution


class _Implicit(torch.autograd.Function):
    """x̂ as a function of the defect y − ∇φ(x̂): identity forward, H⁻¹ backward."""

    @staticmethod
    def forward(ctx: Any, defect: Tensor, argmax: Tensor, solve: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.solve = solve
        return argmax.clone()

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        with torch.no_grad():
            return ctx.solve(outputs[0]), None, None


def _differentiable(
    potential: Potential,
    y: Tensor,
    record: Conjugate,
    direction: Callable[[Potential, Tensor, Tensor], Tensor],
) -> Conjugate:
    fixed = record.argmax.detach()
    value = (fixed * y).sum(1) - potential(fixed)
    defect = y - potential.gradient(fixed)
    argmax = _Implicit.apply(defect, fixed, lambda right: direction(potential, fixed, -right))
    return Conjugate(value, argmax, record.residual, record.steps, record.converged)
