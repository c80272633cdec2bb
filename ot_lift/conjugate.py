"""Convex conjugation: argmax over x of ⟨x, y⟩ − φ(x), the inverse of ∇φ, with a record of how well it went."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ot_lift.errors import ConvergenceError
from ot_lift.hessians import block_rows
from ot_lift.potentials import Potential

Method = Literal["auto", "newton", "newton-cg"]

# From this dimension on the method is Newton-CG. From cold starts it takes 1.6 of Newton's time at d = 16, 1.1 at 32
# and 0.6 at 64 (benchmarks/conjugation.py); in training at d = 32 either takes as long, early steps less by it.
NEWTON_CG_FROM = 32

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
    max_steps: int = 1000,
    method: Method = "auto",
    throw: bool = True,
) -> Conjugate:
    r"""φ*(y) = max over x of ⟨x, y⟩ − φ(x) by safeguarded Newton, all points at once.

    Every point has its own step length (Armijo backtracking on the convex objective φ(x) − ⟨x, y⟩) and leaves the
    batch once converged. Moderate dimensions factor the exact Hessian; large ones solve for the step by conjugate
    gradients on Hessian-vector products. With autograd enabled ``value`` is differentiable in ``y`` and in the
    parameters by the envelope theorem and ``argmax`` by the implicit function theorem,
    :math:`\partial\hat x/\partial w = -H^{-1}\partial_w\nabla\varphi`. Both are first
    derivatives only: a second one would take x̂ for a constant.

    Args:
        potential: a strongly convex potential.
        y: points of shape ``(m, features)``; the result has their dtype.
        x0: where to start, ``(m, features)`` (default: ``y``). A row that is not finite starts at ``y``.
        tol: on ‖∇φ(x̂) − y‖∞ (default: 1e-9 in float64, 1e-4 in float32); never below 64 roundings of the point.
        max_steps: evaluations per point before it is given up.
        method: ``"newton"``, ``"newton-cg"`` or ``"auto"`` (by dimension).
        throw: raise if a point has not converged; else say so in the record.

    Returns:
        A :class:`Conjugate`.

    Raises:
        ConvergenceError: if ``throw`` and a point did not converge.
        ValueError: for shapes that do not match, a method that does not exist, or a lift that is not bound to a batch.

    Example:
        >>> from ot_lift.potentials import Quadratic
        >>> phi = Quadratic(2)  # ½‖x‖² is its own conjugate
        >>> y = torch.tensor([[3.0, 4.0]])
        >>> conjugate(phi, y).value.detach()
        tensor([12.5000])
    """
    _check(potential, y, x0, method)
    if method == "auto":
        method = "newton" if potential.features < NEWTON_CG_FROM else "newton-cg"
    tolerances = _tolerances(y, tol)
    start = y if x0 is None else x0
    rows = block_rows(y)
    with torch.no_grad():
        pieces = zip(y.detach().split(rows), start.detach().split(rows), tolerances.split(rows), strict=True)
        blocks = [
            _search(potential.at_rows(slice(k * rows, (k + 1) * rows)), *piece, method=method, max_steps=max_steps)
            for k, piece in enumerate(pieces)
        ]
    record = Conjugate(*(torch.cat([getattr(one, name.name) for one in blocks]) for name in fields(Conjugate)))
    if throw and not bool(record.converged.all()):
        _raise(record, tolerances)
    if torch.is_grad_enabled():
        return _differentiable(potential, y, record, method)
    return record


def _check(potential: Potential, y: Tensor, x0: Tensor | None, method: str) -> None:
    """Raise for what :func:`conjugate` refuses."""
    if potential.depends_on_batch:
        raise ValueError(
            f"expected a potential with fixed weights, got a {type(potential).__name__}, which emits others for every "
            "batch: conjugate lift.bind(batch=...) or lift.bake(batch)"
        )
    if y.ndim != 2 or y.shape[1] != potential.features:
        raise ValueError(f"expected y of shape (m, {potential.features}), got {tuple(y.shape)}")
    if x0 is not None and x0.shape != y.shape:
        raise ValueError(f"expected x0 of the shape of y, {tuple(y.shape)}, got {tuple(x0.shape)}")
    if method not in ("auto", "newton", "newton-cg"):
        raise ValueError(f"expected method 'auto', 'newton' or 'newton-cg', got {method!r}")


def _search(
    potential: Potential, y: Tensor, x0: Tensor, tolerances: Tensor, *, method: Method, max_steps: int
) -> Conjugate:
    search = _Search(potential, y, x0, tolerances)
    search.run(_Newton(potential, y) if method == "newton" else _NewtonCG(potential, y), max_steps)
    return search.record()


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
        self.value, self.gradient = (part.clone() for part in self._objective(potential, self.x, y))
        self.residual = self.gradient.abs().amax(1)
        self.steps = torch.zeros(len(y), dtype=torch.int64, device=y.device)

    @staticmethod
    def _objective(potential: Potential, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = potential.value_gradient(x)
        return value - (x * y).sum(1), gradient - y

    def run(self, directions: _Directions, max_steps: int) -> None:
        active = (~(self.residual <= self.tolerances)).nonzero().squeeze(1)
        if len(active) == 0 or max_steps < 1:
            return
        directions.renew(active, self.x[active])
        move = self._downhill(directions, active)
        length = torch.ones(len(active), dtype=self.y.dtype, device=self.y.device)
        stale = torch.zeros(len(active), dtype=torch.bool, device=self.y.device)
        for _ in range(max_steps):
            before = self.residual[active]
            accepted = self._try(active, move, length)
            # A factor is kept while it contracts fast: a gradient costs a fraction of a Hessian (a chord method).
            slow = accepted & (self.residual[active] > directions.contraction * before)
            renew = slow | (~accepted & stale)
            # Kinks that have shortened a step shorten the next: trying a full one every time costs evaluations.
            length = torch.where(accepted, (2 * length).clamp_max(1.0), torch.where(renew, length, 0.5 * length))
            going = ~(self.residual[active] <= self.tolerances[active]) & (length > _SHORTEST_STEP)
            if not bool(going.any()):
                return
            active, move, length = active[going], move[going], length[going]
            renew, turn = renew[going], (accepted | renew)[going]
            stale = (stale[going] | turn) & ~renew
            if bool(renew.any()):
                rows = active[renew]
                directions.renew(rows, self.x[rows])
            if bool(turn.any()):
                move[turn] = self._downhill(directions, active[turn])

    def _downhill(self, directions: _Directions, rows: Tensor) -> Tensor:
        """Directions for some points; the steepest descent where a Hessian is too singular to give one."""
        gradient = self.gradient[rows]
        move = directions.move(rows, self.x[rows], gradient)
        sound = torch.isfinite(move).all(1) & ((move * gradient).sum(1) < 0)
        return torch.where(sound[:, None], move, -gradient)

    def _try(self, active: Tensor, move: Tensor, length: Tensor) -> Tensor:
        """One trial per active point; those that decrease the objective enough move."""
        trial = self.x[active] + length[:, None] * move
        value, gradient = self._objective(self.potential.at_rows(active), trial, self.y[active])
        before = self.value[active]
        slope = (self.gradient[active] * move).sum(1)
        terms = 1 + before.abs() + (trial * self.y[active]).sum(1).abs()
        rounding = 16 * torch.finfo(value.dtype).eps * terms
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


class _Directions(Protocol):
    """Where the search gets its directions: an approximate −∇²φ⁻¹·gradient for some of its points."""

    contraction: float

    def renew(self, rows: Tensor, x: Tensor) -> None:
        """Linearise afresh at these points."""

    def move(self, rows: Tensor, x: Tensor, gradient: Tensor) -> Tensor:
        """Directions from the last linearisation."""


class _Newton:
    """Cholesky factors of the exact Hessian, kept for further steps while they serve."""

    contraction = 0.25

    def __init__(self, potential: Potential, y: Tensor) -> None:
        self.potential = potential
        self.factor = y.new_empty(len(y), y.shape[1], y.shape[1])

    def renew(self, rows: Tensor, x: Tensor) -> None:
        self.factor[rows] = factor_hessian(self.potential.at_rows(rows).hessian(x))

    def move(self, rows: Tensor, x: Tensor, gradient: Tensor) -> Tensor:
        return torch.cholesky_solve(-gradient[..., None], self.factor[rows]).squeeze(-1)


class _NewtonCG:
    """Inexact Newton directions by conjugate gradients; nothing is kept."""

    contraction = 0.0

    def __init__(self, potential: Potential, y: Tensor) -> None:
        self.potential = potential

    def renew(self, rows: Tensor, x: Tensor) -> None:
        """Nothing to do: every direction linearises."""

    def move(self, rows: Tensor, x: Tensor, gradient: Tensor) -> Tensor:
        product = self.potential.at_rows(rows).linearise(x)[2]
        # Forcing term min(0.1, √‖g‖)·‖g‖ gives superlinear convergence (Nocedal & Wright 2006, section 7.1).
        norm = gradient.norm(dim=1)
        return conjugate_gradients(product, -gradient, tol=norm * norm.sqrt().clamp_max(0.1))


def _solve(potential: Potential, x: Tensor, right: Tensor) -> Tensor:
    """∇²φ(x)⁻¹·right to rounding, by factorisation."""
    return torch.cholesky_solve(right[..., None], factor_hessian(potential.hessian(x))).squeeze(-1)


def _solve_cg(potential: Potential, x: Tensor, right: Tensor) -> Tensor:
    """∇²φ(x)⁻¹·right to rounding, by conjugate gradients."""
    product = potential.linearise(x)[2]
    tol = 64 * torch.finfo(right.dtype).eps * right.norm(dim=1)
    # Rounding costs an ill-conditioned system many times the d steps of exact arithmetic.
    return conjugate_gradients(product, right, tol=tol, max_steps=16 * right.shape[1])


def factor_hessian(hessian: Tensor) -> Tensor:
    """Lower Cholesky factors of Hessians; those that fail by rounding are redone in float64 with a rounding's jitter.

    Args:
        hessian: positive semi-definite, ``(n, d, d)``.

    Returns:
        ``(n, d, d)``; not finite where even that fails.

    Example:
        >>> factor_hessian(4 * torch.eye(2)[None]).tolist()
        [[[2.0, 0.0], [0.0, 2.0]]]
    """
    factor, info = torch.linalg.cholesky_ex(hessian)
    failed = info > 0
    if bool(failed.any()):
        matrix = hessian[failed].double()
        scale = matrix.diagonal(dim1=1, dim2=2).abs().amax(1).clamp_min(torch.finfo(torch.float64).tiny)
        jitter = 4 * torch.finfo(hessian.dtype).eps * hessian.shape[-1] * scale
        again, info = torch.linalg.cholesky_ex(matrix + torch.diag_embed(jitter[:, None].expand(-1, matrix.shape[-1])))
        again[info > 0] = float("nan")
        factor[failed] = again.to(factor)
    return factor


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
    @once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None]:
        return ctx.solve(outputs[0]), None, None


def _differentiable(
    potential: Potential,
    y: Tensor,
    record: Conjugate,
    method: Method,
) -> Conjugate:
    fixed = record.argmax.detach()
    value = (fixed * y).sum(1) - potential(fixed)
    defect = y - potential.gradient(fixed)
    solve = _solve if method == "newton" else _solve_cg
    argmax = _Implicit.apply(defect, fixed, lambda right: solve(potential, fixed, right))
    return Conjugate(value, argmax, record.residual, record.steps, record.converged)
