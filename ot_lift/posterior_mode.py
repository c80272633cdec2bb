"""Where a posterior is: its modes from many starts, and the Laplace coordinates of the highest."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import OptimizeResult, minimize
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types
from torch import Tensor

from ot_lift.errors import ConvergenceError, DataError
from ot_lift.posterior_target import Target

_NEAR_STARTS = 4  # the origin, and points of U(−2, 2)ᵈ as Stan and NumPyro start
# In posterior standard deviations a coordinate; two of each, opposite to each other. The farther ones are for modes far
# apart: the search ends at another mode only from its side of the valley between them.
_FAR_STARTS = (3.0, 10.0, 30.0, 100.0, 300.0)
_SLOW, _SLOW_STEPS = 1e-3, 20  # nats in so many steps of L-BFGS: what is left is for Newton, or of no account
_NEWTON_STEPS = 50
_ROUNDING = 1e-12  # of a log density, relative: what gains less is judged by its gradient
_DROP = 0.5  # nats: a Gaussian falls by this at one standard deviation
_DIP = 0.1  # nats that the log density must fall between two maxima for them to count as two
_CHORD = 64  # points on a chord between two maxima
_DOUBLINGS = 120  # of a width; a log density that has not fallen by then does not fall


@dataclass(frozen=True)
class Laplace:
    """The highest mode found, and coordinates u = R⁻¹(θ − c) in which the posterior is about N(0, I).

    Attributes:
        mode: ``(d,)``.
        centre: c ``(d,)``: the mode, or the mean of a better Gaussian approximation.
        root: R ``(d, d)``; RRᵀ is the covariance of the Laplace approximation, or of that Gaussian.
        inverse_root: R⁻¹ ``(d, d)``.
        log_density: log density at the mode, as the target gives it.
        residual: ‖Rᵀ∇ log π(mode)‖₂ by the Laplace approximation, in posterior standard deviations; 0 at a smooth
            maximum.
        agreement: share of the starts that ended at this mode.
        other_modes: ``(k, d)``; the log density falls on the way from each of them to the mode.
        starts: ``(s, d)``; the overdispersed points that the search began at.
    """

    mode: Tensor
    centre: Tensor
    root: Tensor
    inverse_root: Tensor
    log_density: float
    residual: float
    agreement: float
    other_modes: Tensor
    starts: Tensor

    @property
    def log_det(self) -> float:
        """Log |det R|."""
        return float(torch.linalg.slogdet(self.root)[1])

    def to_user(self, u: Tensor) -> Tensor:
        """θ = c + Ru ``(n, d)``."""
        return self.centre + u.double() @ self.root.T

    def from_user(self, theta: Tensor) -> Tensor:
        """U = R⁻¹(θ − c) ``(n, d)``."""
        return (theta.double() - self.centre) @ self.inverse_root.T

    @classmethod
    def gaussian(cls, mean: Tensor, covariance: Tensor) -> Laplace:
        """The coordinates of given moments, for draws without a density.

        Raises:
            DataError: if the covariance is singular.

        Example:
            >>> units = Laplace.gaussian(torch.ones(1), torch.tensor([[4.0]]))
            >>> units.to_user(torch.ones(1, 1)).item(), units.from_user(torch.tensor([[5.0]])).item()
            (3.0, 2.0)
        """
        scale = covariance.double().diagonal().clamp_min(0).sqrt()
        values, vectors = torch.linalg.eigh(covariance.double() / (scale[:, None] * scale).clamp_min(1e-300))
        if not (bool((scale > 0).all()) and float(values[0]) > 1e-12):
            raise DataError(
                "expected draws that vary in every direction, got a singular covariance: drop constant or duplicated "
                "columns, or pass more draws"
            )
        root, inverse = _roots(scale, vectors, values.sqrt())
        none = mean.new_zeros(0, len(mean), dtype=torch.float64)
        return cls(mean.double(), mean.double(), root, inverse, math.nan, 0.0, 1.0, none, none)


def find_mode(target: Target, generator: torch.Generator) -> Laplace:
    """The highest mode by L-BFGS from overdispersed starts and then Newton, all in float64.

    Args:
        target: the log density.
        generator: source of the starts.

    Returns:
        The mode and its Laplace coordinates. Where the curvature at the mode says nothing of the width (a kink, a
        quartic), the width is the distance at which the log density has fallen by half a nat.

    Raises:
        DataError: if the log density is finite at no start.
        ConvergenceError: if the log density has no maximum, or does not fall in some direction.

    Example:
        >>> class Normal:
        ...     dim = 1
        ...     def log_density(self, x):
        ...         return -0.5 * ((x - 3) / 2).square().sum(-1)
        >>> found = find_mode(Target(Normal()), torch.Generator().manual_seed(0))
        >>> round(found.mode.item(), 9), round(found.root.item(), 9), found.agreement
        (3.0, 2.0, 1.0)
    """
    d = target.dim
    near = 2 * (2 * torch.rand(_NEAR_STARTS, d, generator=generator, dtype=torch.float64) - 1)
    near[0] = 0.0
    identity = torch.eye(d, dtype=torch.float64)
    ends = [end for start in near if (end := _ascend(target, start, identity)) is not None]
    if not ends:
        raise DataError(
            f"expected a log density that is finite, with its gradient, at one of {len(near)} starts, got none: "
            f"it is {float(target.value_gradient(near[:1])[0])} at the origin"
        )
    best = ends[int(target.value(torch.stack(ends)).argmax())]
    found = _coordinates(target, _newton(target, best))
    starts = _far_starts(target, found, generator)
    again = [end for start in starts if (end := _ascend(target, start, found.root)) is not None]
    points = torch.stack(ends + again)
    values = target.value(points)
    if float(values.max()) > found.log_density + _DIP:  # a higher mode lies farther out
        found = _coordinates(target, _newton(target, points[values.argmax()]))
    apart = torch.tensor([_apart(target, found.mode, point) for point in points])
    return replace(
        found,
        agreement=1.0 - float(apart.double().mean()),
        other_modes=_distinct(target, points[apart]),
        starts=torch.cat([near[torch.isfinite(target.value(near))], starts]),
    )


def _ascend(target: Target, start: Tensor, root: Tensor) -> Tensor | None:
    """A local maximum by L-BFGS in coordinates start + R u; None where the log density is not finite at the start."""
    value, gradient = target.value_gradient(start[None])
    if not bool(torch.isfinite(value).all() & torch.isfinite(gradient).all()):
        return None
    worst = -float(value) + 1e10 * (1.0 + abs(float(value)))

    def negative(u: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        value, gradient = target.value_gradient(start[None] + torch.from_numpy(u)[None] @ root.T)
        if not bool(torch.isfinite(value).all() & torch.isfinite(gradient).all()):
            return worst, np.zeros_like(u)  # a wall: the line search turns back
        return -float(value), -(gradient @ root)[0].numpy()

    values: deque[float] = deque(maxlen=_SLOW_STEPS)

    def crawling(intermediate_result: OptimizeResult) -> None:
        values.append(float(intermediate_result.fun))
        if len(values) == _SLOW_STEPS and values[0] - values[-1] < _SLOW:
            raise StopIteration  # at a kink L-BFGS creeps for thousands of steps

    options: dict[str, Any] = {"maxiter": 2000, "maxfun": 5000, "ftol": 1e-14, "gtol": 1e-8, "maxls": 50}
    # SciPy's BLAS has threads of its own, which spin for work and take the cores from torch's: three times as long.
    with threadpool_limits(1, user_api="blas"):
        start_u = np.zeros(target.dim)
        result = minimize(negative, start_u, jac=True, method="L-BFGS-B", callback=crawling, options=options)
    return start + root @ torch.from_numpy(np.asarray(result.x))


def _newton(target: Target, x: Tensor) -> Tensor:
    """Newton steps that raise the log density, and at last, where its rounding hides that, lessen the gradient."""
    value = float(target.value(x[None]))
    for _ in range(_NEWTON_STEPS):
        gradient = target.value_gradient(x[None])[1][0]
        curvature = -target.hessian(x[None])[0]
        factor, info = torch.linalg.cholesky_ex(curvature)
        if int(info) != 0 or not bool(torch.isfinite(factor).all()):
            return x  # a kink, or a saddle: L-BFGS has done what can be done
        step = torch.cholesky_solve(gradient[:, None], factor)[:, 0]
        gain = float(gradient @ step)
        if gain < _ROUNDING * (1.0 + abs(value)):
            after = target.value_gradient((x + step)[None])[1][0]
            if not float(after @ torch.cholesky_solve(after[:, None], factor)[:, 0]) < 0.5 * gain:
                return x
            x = x + step
            continue
        lengths = 0.5 ** torch.arange(20, dtype=torch.float64)
        values = target.value(x + lengths[:, None] * step)
        chosen = int(values.argmax())
        if not float(values[chosen]) > value:
            return x
        x, value = x + lengths[chosen] * step, float(values[chosen])
    return x


def _coordinates(target: Target, mode: Tensor) -> Laplace:
    """Laplace coordinates at a mode: curvatures, or measured widths where those say nothing."""
    curvature = -target.hessian(mode[None])[0].nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    axes = torch.eye(target.dim, dtype=torch.float64)
    guess = torch.where(curvature.diagonal() > 0, curvature.diagonal(), 1.0).rsqrt()
    scale = _widths(target, mode, axes, guess)
    values, vectors = torch.linalg.eigh(scale[:, None] * curvature * scale)
    guess = torch.where(values > 1e-12, values.clamp_min(1e-12).rsqrt(), 1.0)
    widths = _widths(target, mode, scale[:, None] * vectors, guess)
    root, inverse = _roots(scale, vectors, widths)
    value, gradient = target.value_gradient(mode[None])
    none = mode.new_zeros(0, len(mode))
    return Laplace(mode, mode, root, inverse, float(value), float((gradient @ root).norm()), 1.0, none, none)


def _roots(scale: Tensor, vectors: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
    """R = D V diag(w) Vᵀ and its inverse: the units of the coordinates stay outside the eigenproblem."""
    return scale[:, None] * (vectors * widths) @ vectors.T, (vectors / widths) @ vectors.T / scale


def _widths(target: Target, mode: Tensor, directions: Tensor, guess: Tensor) -> Tensor:
    """Distance along each column at which the log density has fallen by half a nat, the mean of both sides.

    The guess is kept where the fall there is that of a Gaussian within a factor of two.
    """
    top = target.value(mode[None])

    def fall(lengths: Tensor) -> Tensor:
        steps = lengths[:, None] * directions.T
        return top - target.value(torch.cat([mode + steps, mode - steps])).reshape(2, -1).mean(0)

    kept = (fall(guess) > 0.5 * _DROP) & (fall(guess) < 2 * _DROP)
    if bool(kept.all()):
        return guess
    low, high = guess.clone(), guess.clone()
    for _ in range(_DOUBLINGS):  # widen until both sides have fallen, and narrow until neither has
        wide = fall(high) < _DROP
        narrow = fall(low) > _DROP
        if not bool((wide | narrow).any()):
            break
        high, low = torch.where(wide, 2 * high, high), torch.where(narrow, 0.5 * low, low)
    else:
        flat = int((fall(high) < _DROP).nonzero()[:1].sum())
        largest = directions[:, flat].abs().argmax()
        raise ConvergenceError(
            "expected a log density with a maximum from which it falls in every direction, got one that does not fall "
            f"by {_DROP} within {float(high[flat]):.1e} of {mode.tolist()[:6]}, mostly along {target.names[largest]}: "
            "the posterior is improper there; give the parameter a proper prior"
        )
    for _ in range(40):
        middle = (low * high).sqrt()
        above = fall(middle) > _DROP
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return torch.where(kept, guess, (low * high).sqrt())


def _far_starts(target: Target, found: Laplace, generator: torch.Generator) -> Tensor:
    """Opposite points around the mode, drawn in where the log density is not finite."""
    starts = []
    for radius in _FAR_STARTS:
        direction = torch.randn(target.dim, generator=generator, dtype=torch.float64)
        direction *= math.sqrt(target.dim) / direction.norm()
        for u in (radius * direction, -radius * direction):
            for _ in range(20):
                point = found.to_user(u[None])
                value, gradient = target.value_gradient(point)
                if bool(torch.isfinite(value).all() & torch.isfinite(gradient).all()):
                    starts.append(point[0])
                    break
                u = 0.5 * u
    return torch.stack(starts) if starts else found.starts


def _apart(target: Target, one: Tensor, other: Tensor) -> bool:
    """Whether the log density falls between two maxima, below both."""
    share = torch.linspace(0.0, 1.0, _CHORD, dtype=torch.float64)[:, None]
    values = target.value(torch.lerp(one[None], other[None], share))
    return bool(values.min() < torch.minimum(values[0], values[-1]) - _DIP)


def _distinct(target: Target, points: Tensor) -> Tensor:
    """One point of each group of maxima between which the log density does not fall."""
    kept: list[Tensor] = []
    for point in points:
        if all(_apart(target, other, point) for other in kept):
            kept.append(point)
    return torch.stack(kept) if kept else points
