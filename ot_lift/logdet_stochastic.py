"""Stochastic log-determinants on Hessian-vector products: Lanczos quadrature, and the CG estimate of a gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ot_lift.constrained import ConstrainedPotential
from ot_lift.potentials import Potential

_BLOCK_ROWS = 4096  # rows times probes at a time: memory stays flat however many there are

# Spacing of the trapezoidal rule of `_log_quadrature`: its error, 8π·exp(−2π²/spacing), is 7e-8 and 2e-16.
_COARSE, _FINE = 1.0, 0.5

_JUDGED_FROM = 3  # steps before the convergence of a solve is extrapolated


@dataclass(frozen=True)
class StochasticLogDet:
    """Result of :func:`stochastic_log_det` for n points.

    Attributes:
        value: mean over the probes of d·Σ τ² log θ, shape ``(n,)``, float64.
        standard_error: of ``value``, from the spread of the probes, shape ``(n,)``. It knows nothing of truncation.
        residual: bound on the truncation bias, shape ``(n,)``: E[value] − residual ≤ log det ≤ E[value] up to rounding.
            Infinite where the potential is not strongly convex and the Krylov space is not exhausted.
        probes: how many probes a point had.
        steps: Lanczos steps of a probe.
    """

    value: Tensor
    standard_error: Tensor
    residual: Tensor
    probes: int
    steps: int


@dataclass(frozen=True)
class LogDetSurrogate:
    """Result of :func:`log_det_surrogate` for n points.

    Attributes:
        value: φ(x), shape ``(n,)``.
        gradient: ∇φ(x), shape ``(n, features)``.
        surrogate: shape ``(n,)``. Its number is the one-probe Lanczos estimate of log det ∇²φ(x), its derivative in the
            parameters and in x the estimate v′H⁻¹dH v of tr(H⁻¹dH).
        residual: ‖v − H·u‖₂/‖v‖₂ of the solution u that the derivative uses, shape ``(n,)``.
        steps: CG steps, for all points alike.
        converged: residual ≤ tol, shape ``(n,)``, bool.
    """

    value: Tensor
    gradient: Tensor
    surrogate: Tensor
    residual: Tensor
    steps: int
    converged: Tensor


def stochastic_log_det(
    potential: Potential, x: Tensor, *, probes: int = 16, steps: int = 32, generator: torch.Generator
) -> StochasticLogDet:
    r"""Log det ∇²φ(x) = tr log ∇²φ(x) by stochastic Lanczos quadrature, with its standard error.

    For a Rademacher probe v, E[v′ log(H) v] = tr log H. `steps` Lanczos steps from v, fully reorthogonalised, give the
    Gauss rule :math:`v'\log(H)v \approx d\sum_j\tau_j^2\log\theta_j`. The even derivatives of the logarithm are
    negative, so a truncated rule is too large: **value is biased upwards** unless ``steps`` ≥ ``features``, whatever
    the number of probes. The Gauss–Radau rule with a node at μ is too small; ``residual`` is the difference of both.

    No derivative is taken: see :func:`log_det_surrogate`.

    Args:
        potential: a strongly convex potential.
        x: points, ``(n, features)``.
        probes: Rademacher vectors per point, at least 2.
        steps: Lanczos steps per probe, at least 1; no more than ``features`` are taken.
        generator: source of the probes.

    Returns:
        A :class:`StochasticLogDet`.

    Raises:
        ValueError: if a number or the shape of ``x`` is out of range.

    References:
        Ubaru, Chen and Saad (2017), "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature", SIAM J. Matrix
        Anal. Appl. 38(4); Golub and Meurant (2010), "Matrices, moments and quadrature with applications", chapter 6
        (signs of the Gauss and Gauss–Radau errors).

    Example:
        >>> from ot_lift.potentials import Quadratic
        >>> phi = Quadratic(2)
        >>> phi.set_quadratic_(torch.diag(torch.tensor([2.0, 3.0])))  # diagonal: no probe is off
        >>> found = stochastic_log_det(phi, torch.zeros(1, 2), generator=torch.Generator().manual_seed(0))
        >>> round(found.value.exp().item(), 4), round(found.standard_error.item(), 4)
        (6.0, 0.0)
    """
    potential = at_points(potential, x)
    if probes < 2 or steps < 1:
        raise ValueError(f"expected probes >= 2 and steps >= 1, got probes={probes}, steps={steps}")
    steps = min(steps, potential.features)
    blocks = []
    with torch.no_grad():
        for index in torch.arange(len(x), device=x.device).repeat(probes).split(_BLOCK_ROWS):
            rows = x.detach()[index]
            product = potential.at_rows(index).linearise(rows)[2]
            lanczos = Lanczos(product, rademacher(rows, generator), steps, passes=2)
            lanczos.run()
            blocks.append(torch.stack(lanczos.bracket(potential.strong_convexity)))
    upper, lower = torch.cat(blocks, 1).view(2, probes, len(x))
    value = upper.mean(0)
    variance = (upper - value).square().sum(0) / (probes - 1)
    residual = (upper - lower).mean(0).clamp_min(0.0)
    return StochasticLogDet(value, (variance / probes).sqrt(), residual, probes, steps)


def log_det_surrogate(
    potential: Potential,
    x: Tensor,
    *,
    generator: torch.Generator,
    tol: float | None = None,
    max_steps: int | None = None,
) -> LogDetSurrogate:
    """Something whose derivative is an unbiased estimate of that of log det ∇²φ(x): one probe, one CG solve.

    d log det H = tr(H⁻¹dH) = E[v′H⁻¹dH v] for Rademacher v. u = H⁻¹v is solved for by conjugate gradients without a
    graph, and v′(H·u) is differentiated at fixed u. The estimate is unbiased at convergence: a residual r leaves a bias
    of the relative order ‖r‖/‖v‖, which ``residual`` reports and a loose ``tol`` or few ``max_steps`` make large.

    The iterates are those of conjugate gradients, taken from the Lanczos basis of the probe, which is kept and fully
    reorthogonalised: rounding then costs no further steps, and the basis gives the value's estimate for nothing.

    Args:
        potential: a strongly convex potential.
        x: points, ``(n, features)``.
        generator: source of the probes, one a point.
        tol: on ‖v − H·u‖₂/‖v‖₂ (default: 1e-3 in float32, 1e-8 in float64).
        max_steps: default: ``features``, after which exact arithmetic has converged.

    Returns:
        A :class:`LogDetSurrogate`; nothing is raised where a solve has not converged.

    Raises:
        ValueError: if a number or the shape of ``x`` is out of range.

    References:
        Huang, Chen, Tsirigotis and Courville (2021), "Convex potential flows", arXiv 2012.05942, section 3.

    Example:
        >>> from ot_lift.potentials import Quadratic
        >>> phi = Quadratic(2)  # Q = LL′ starts at I, where the derivative of log det Q in L is 2I on the diagonal
        >>> found = log_det_surrogate(phi, torch.zeros(1, 2), generator=torch.Generator().manual_seed(0))
        >>> (slope,) = torch.autograd.grad(found.surrogate.sum(), phi.factor)
        >>> slope.diagonal(), bool(found.converged)
        (tensor([2., 2.]), True)
    """
    potential = at_points(potential, x)
    if max_steps is not None and max_steps < 1:
        raise ValueError(f"expected max_steps >= 1, got {max_steps}")
    tol = default_tolerance(x) if tol is None else tol
    if not 0 < tol < 1:
        raise ValueError(f"expected tol between 0 and 1, relative to the probe's norm, got {tol}")
    value, gradient, product = potential.linearise(x)
    probe = rademacher(x, generator)
    with torch.no_grad():
        lanczos = Lanczos(product, probe, min(max_steps or potential.features, potential.features))
        lanczos.run(tol)
        solution = lanczos.solution()
        estimate = lanczos.log_quadrature(potential.strong_convexity)
    surrogate, residual = attach(product, probe, solution, estimate.to(x.dtype))
    return LogDetSurrogate(value, gradient, surrogate, residual, lanczos.steps, residual <= tol)


def attach(
    product: Callable[[Tensor], Tensor], probe: Tensor, solution: Tensor, log_det: Tensor
) -> tuple[Tensor, Tensor]:
    """The numbers ``log_det`` ``(n,)`` with the derivative of v′(H·u) at fixed u, and the residual ‖v − H·u‖/‖v‖."""
    image = product(solution)
    form = (probe * image).sum(1)
    residual = (probe - image.detach()).norm(dim=1) / math.sqrt(probe.shape[1])
    return log_det + (form - form.detach()), residual


def rademacher(x: Tensor, generator: torch.Generator) -> Tensor:
    """Signs ±1 of the shape, dtype and device of ``x``."""
    return torch.randint(0, 2, x.shape, generator=generator, device=generator.device).to(x).mul_(2).sub_(1)


def default_tolerance(x: Tensor) -> float:
    """Relative residual of a CG solve at which it counts as converged: far below the probe's own noise."""
    return 1e-8 if x.dtype == torch.float64 else 1e-3


def at_points(potential: Potential, x: Tensor) -> Potential:
    """The potential to evaluate at x, where x is ``(n, features)``.

    A wrapper that is not bound is bound here: what a lift emits must not depend on how the rows are taken apart later.
    """
    if x.ndim != 2 or x.shape[1] != potential.features:
        raise ValueError(f"expected x of shape (n, {potential.features}), got {tuple(x.shape)}")
    return potential.bind(batch=x) if isinstance(potential, ConstrainedPotential) else potential


class Lanczos:
    """Lanczos tridiagonalisation of A from one start vector a row, all rows in step, with the CG iterates it implies.

    With Q its orthonormal basis, Q′AQ = T is tridiagonal. Where the Krylov space of a row is exhausted the row's T goes
    on with ones on its diagonal, apart from the rest, whose logarithm adds nothing.

    Args:
        product: v ``(n, d)`` ↦ Av ``(n, d)``, A positive definite.
        start: ``(n, d)``, nowhere zero.
        max_steps: at most d.
        passes: how often each new vector is orthogonalised against all before it.

    References:
        Saad (2003), "Iterative methods for sparse linear systems", section 6.7 (CG from Lanczos).
    """

    def __init__(self, product: Callable[[Tensor], Tensor], start: Tensor, max_steps: int, *, passes: int = 1) -> None:
        self.product, self.max_steps, self.passes = product, max_steps, passes
        self.norm = start.norm(dim=1, keepdim=True)
        self.basis = start.new_empty(len(start), max_steps + 1, start.shape[1])
        self.basis[:, 0] = start / self.norm
        self.diagonal: list[Tensor] = []  # of T, each (n,) and float64, as all that follow
        self.below: list[Tensor] = []  # T's off-diagonal; the last entry leads out of T
        self.pivots: list[Tensor] = []  # of T = L diag(pivots) L′
        self.residual = start.new_ones(len(start), dtype=torch.float64)  # of CG, relative
        self._scale = torch.zeros_like(self.residual)

    @property
    def steps(self) -> int:
        return len(self.diagonal)

    def run(self, tol: float = 0.0, *, solve_cost: float = math.inf) -> None:
        """Step until every row has converged, or to `max_steps`, or until a direct solve promises to be cheaper.

        Args:
            tol: on the relative residual.
            solve_cost: steps that solving all rows directly would cost.
        """
        while self.steps < self.max_steps:
            self.step()
            going = int((~(self.residual <= tol)).sum())
            if going == 0 and tol > 0:
                return
            if math.isfinite(solve_cost) and self.steps >= _JUDGED_FROM:
                worst = float(self.residual.amax())
                ahead = self.steps * (math.log(tol) / math.log(worst) - 1) if 0 < worst < 1 else math.inf
                if ahead > 1 + solve_cost * going / len(self.residual):
                    return

    def step(self) -> None:
        """Add one vector to the basis, one row to T and one step to CG."""
        k = self.steps
        known = self.basis[:, : k + 1]
        rest = self.product(known[:, k])
        diagonal = torch.zeros_like(self.residual)
        for _ in range(self.passes):
            shares = (known @ rest[:, :, None]).squeeze(2)
            rest = torch.baddbmm(rest[:, None], shares[:, None], known, alpha=-1).squeeze(1)
            diagonal += shares[:, k]
        below = rest.norm(dim=1)
        ended = self.below[-1] == 0 if k else torch.zeros_like(diagonal, dtype=torch.bool)
        diagonal = torch.where(ended, 1.0, diagonal)
        self._scale = torch.maximum(self._scale, diagonal.abs() + below)
        ends = ended | (below <= 16 * torch.finfo(rest.dtype).eps * self._scale)
        if k + 1 == rest.shape[1]:
            ends = torch.ones_like(ends) & ~below.isnan()
        self.basis[:, k + 1] = torch.where(ends[:, None], 0.0, rest / below[:, None])
        pivot = diagonal - self.below[-1].square() / self.pivots[-1] if k else diagonal
        self.diagonal.append(diagonal)
        self.below.append(torch.where(ends, 0.0, below.double()))
        self.pivots.append(pivot)
        # No positive definite matrix has a pivot that is not positive: such a row never counts as solved.
        self.residual = torch.where(pivot > 0, self.residual * self.below[-1] / pivot, math.inf)

    def solution(self) -> Tensor:
        """A⁻¹·start as CG has it by now, ``(n, d)``."""
        ratios = [below / pivot for below, pivot in zip(self.below, self.pivots, strict=True)]
        forward = torch.ones_like(self.residual)
        shares = []
        for pivot, ratio in zip(self.pivots, ratios, strict=True):
            shares.append(forward / pivot)
            forward = -ratio * forward
        for j in reversed(range(self.steps - 1)):
            shares[j] = shares[j] - ratios[j] * shares[j + 1]
        weights = torch.stack(shares, 1).to(self.basis) * self.norm
        return (weights[:, None] @ self.basis[:, : self.steps]).squeeze(1)

    def log_quadrature(self, floor: float, *, spacing: float = _COARSE) -> Tensor:
        """start′ log(A) start by the Gauss rule of T, ``(n,)``, float64; no eigenvalue of A is below ``floor``."""
        rule = _log_quadrature(self.diagonal, self.below[:-1], floor, spacing)
        return self.norm[:, 0].double().square() * rule

    def bracket(self, floor: float) -> tuple[Tensor, Tensor]:
        """start′ log(A) start from above by the Gauss rule and from below by Gauss–Radau with a node at ``floor``."""
        upper = self.log_quadrature(floor, spacing=_FINE)
        open_ended = self.below[-1] != 0
        if floor == 0:
            return upper, torch.where(open_ended, -math.inf, upper)
        pivot = self.diagonal[0] - floor
        for diagonal, below in zip(self.diagonal[1:], self.below[:-1], strict=True):
            pivot = diagonal - floor - below.square() / torch.where(below == 0, 1.0, pivot)
        last = torch.where(open_ended, floor + self.below[-1].square() / pivot, 1.0)
        rule = _log_quadrature([*self.diagonal, last], self.below, floor, _FINE)
        return upper, self.norm[:, 0].double().square() * rule


def _log_quadrature(diagonal: list[Tensor], below: list[Tensor], floor: float, spacing: float) -> Tensor:
    """e₁′ log(T) e₁ of tridiagonal matrices, ``(n,)``, without their eigenvalues.

    log λ = ∫ eʸ/(1 + eʸ) − eʸ/(λ + eʸ) dy over the real line. The integrand is analytic for |Im y| < π, so the
    trapezoidal rule is off by at most 8π·exp(−2π²/spacing) (Trefethen and Weideman 2014, SIAM Review 56(3)). All it
    needs is e₁′(T + s)⁻¹e₁, a continued fraction, whose pivots are at least s plus T's least eigenvalue.
    """

    def resolvent(shift: Tensor) -> Tensor:
        least = (shift + floor).clamp_min(torch.finfo(torch.float64).tiny)
        pivot = torch.maximum(diagonal[-1][:, None] + shift, least)
        for j in reversed(range(len(below))):
            ratio = below[j].square()[:, None] / pivot
            pivot = torch.maximum((diagonal[j][:, None] + shift).sub_(ratio), least)
        return 1 / pivot

    reach = 2 * math.pi**2 / spacing
    # Beyond the ends the integrand is below e^−reach: it falls as eʸ·e₁′T⁻¹e₁ and e⁻ʸ·e₁′Te₁.
    ends = (resolvent(diagonal[0].new_zeros(1))[:, 0], diagonal[0])
    low, high = (reach + float(torch.cat([end[end.isfinite()], end.new_ones(1)]).amax().log()) for end in ends)
    count = math.ceil((low + high) / spacing) + 1
    shift = (torch.arange(count, dtype=torch.float64, device=diagonal[0].device) * spacing - low).exp()
    return spacing * ((shift / (1 + shift)) - shift * resolvent(shift)).sum(1)
