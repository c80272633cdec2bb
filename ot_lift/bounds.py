"""One-sided confidence limits of W2² from held-out points: weak duality below, exact transport above."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import t as student

from ot_lift.discrete import ExactTransport, exact_transport

__all__ = [
    "CONFIDENCE",
    "Estimate",
    "HeldOut",
    "UpperLimit",
    "dual_estimate",
    "primal_estimate",
    "upper_limit",
]

Array = npt.NDArray[np.float64]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class HeldOut:
    """A map's values at points it has not seen; the arrays that `ot_lift.certificate.certify` describes."""

    x: Array
    y: Array
    phi_x: Array
    transported: Array
    x_hat: Array
    phi_x_hat: Array
    residual: Array


@dataclass(frozen=True)
class Estimate:
    """An estimate with the influence of each point on it, divided by that side's number of points.

    The two sides are independent samples: the variance is the sum over points of squared, centred influences.
    """

    value: float
    source: Array
    target: Array

    def error(self) -> float:
        """Standard error of the value."""
        return float(np.sqrt(sum(self._variances())))

    def quantile(self, level: float) -> float:
        """Student-t quantile with Welch–Satterthwaite degrees of freedom."""
        sides = [(v, len(values) - 1) for v, values in zip(self._variances(), (self.source, self.target), strict=True)]
        total = sum(v for v, _ in sides)
        if total == 0:
            return 0.0
        shares = sum((v / total) ** 2 / degrees for v, degrees in sides if degrees > 0)
        return float(student.ppf(level, 1 / shares))

    def minus(self, other: Estimate) -> Estimate:
        """The difference, from the same points."""
        return Estimate(self.value - other.value, self.source - other.source, self.target - other.target)

    def _variances(self) -> tuple[float, float]:
        first, second = (
            float(((values - values.mean()) ** 2).sum() * len(values) / max(1, len(values) - 1))
            for values in (self.source, self.target)
        )
        return first, second


def dual_estimate(unit: HeldOut, strong_convexity: float) -> tuple[Estimate, float]:
    """The dual value with φ* from above, and an allowance for the rounding of its large, cancelling terms."""
    slack = (unit.residual**2).sum(1) / (2 * strong_convexity)
    conjugate = (unit.x_hat * unit.y).sum(1) - unit.phi_x_hat + slack
    squares = (unit.x**2).sum(1), (unit.y**2).sum(1)
    source, target = squares[0] - 2 * unit.phi_x, squares[1] - 2 * conjugate
    largest = sum(float(np.abs(term).max()) for term in (*squares, 2 * unit.phi_x, 2 * unit.phi_x_hat))
    value = float(source.mean() + target.mean())
    return Estimate(value, source / len(source), target / len(target)), 8 * float(np.finfo(np.float64).eps) * largest


def primal_estimate(costs: Array) -> Estimate:
    """E‖x − T(x)‖² from its values at the source points `(n,)`."""
    return Estimate(float(costs.mean()), costs / len(costs), np.zeros(1))


@dataclass(frozen=True)
class UpperLimit:
    """The chosen limit, the error of its estimate, and what exact transport said on the way."""

    limit: float
    error: float
    basis: str
    image: float
    points: int
    converged: bool


def upper_limit(unit: HeldOut, costs: Array, *, max_transport_points: int, generator: torch.Generator) -> UpperLimit:
    """The smaller of two upper limits, each at half the error level (a union bound pays for the choice)."""
    rows, columns = (
        torch.randperm(len(points), generator=generator)[:max_transport_points].numpy() for points in (unit.x, unit.y)
    )
    direct = exact_transport(unit.x[rows], unit.y[columns])
    image = exact_transport(unit.transported[rows], unit.y[columns])
    candidates = {
        "exact transport": Estimate(
            direct.value, direct.source_potential / len(rows), direct.target_potential / len(columns)
        ),
        "triangle": _triangle(costs, image, rows),
    }
    level = 1 - (1 - CONFIDENCE) / 2
    limits = {name: mean.value + mean.quantile(level) * mean.error() for name, mean in candidates.items()}
    basis = min(limits, key=lambda name: limits[name])
    return UpperLimit(
        limit=limits[basis],
        error=candidates[basis].error(),
        basis=basis,
        image=image.value,
        points=max(len(rows), len(columns)),
        converged=direct.converged and image.converged,
    )


def _triangle(costs: Array, image: ExactTransport, rows: npt.NDArray[np.int64]) -> Estimate:
    """(√p + √e)², p the mean cost and e = W2²(T#X, Y), with influences by the delta method.

    d(√p + √e)² = (1 + √(e/p)) dp + (1 + √(p/e)) de; the points behind e are a subset of those behind p.
    """
    p, e = float(costs.mean()), image.value
    source = (costs - p) / len(costs) * (1 + np.sqrt(e / p) if p > 0 else 1.0)
    weight = 1 + np.sqrt(p / e) if e > 0 else 1.0
    source[rows] += weight * image.source_potential / len(rows)
    return Estimate(
        float((np.sqrt(p) + np.sqrt(e)) ** 2),
        source,
        weight * image.target_potential / len(image.target_potential),
    )
