"""Six log-concave densities on the line, with quadrature on the interval that holds all of their mass but 2·10⁻⁶."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.special import xlogy

Array = npt.NDArray[np.float64]

GRID_POINTS = 8_000
_TAIL = 1e-6  # of the mass, cut off at an end that is at infinity
_PANELS, _NODES = 16, 16


@dataclass(frozen=True)
class Target:
    """A log-concave density on the line.

    Attributes:
        name: small letters and hyphens.
        title: with its parameters.
        law: SciPy's frozen distribution.

    Example:
        >>> laplace = TARGETS["laplace"]
        >>> float(laplace.density(np.zeros(1))[0]), [round(end, 2) for end in laplace.interval]
        (0.5, [-13.12, 13.12])
    """

    name: str
    title: str
    law: Any

    @functools.cached_property
    def interval(self) -> tuple[float, float]:
        """The ends of the support; quantiles where it has none."""
        low, high = self.law.support()
        return (
            float(low if np.isfinite(low) else self.law.ppf(_TAIL)),
            float(high if np.isfinite(high) else self.law.isf(_TAIL)),
        )

    def sample(self, count: int, rng: np.random.Generator) -> Array:
        """Independent points in the interval, `(count,)`; those beyond it, 2 in a million, are moved to its ends."""
        drawn: Array = np.clip(self.law.rvs(size=count, random_state=rng), *self.interval)
        return drawn

    def density(self, x: Array) -> Array:
        """p(x), same shape."""
        found: Array = self.law.pdf(x)
        return found

    def grid(self, count: int = GRID_POINTS) -> Array:
        """Evenly spaced points of the interval, `(count,)`."""
        return np.linspace(*self.interval, count)

    def quadrature(self, panels: int = _PANELS, nodes: int = _NODES) -> tuple[Array, Array]:
        """Nodes `(panels·nodes,)` in the interval, by default 256, and the logarithms of their weights.

        Panels of equal probability with as many Gauss–Legendre nodes each: close to one another where the
        mass is, so that a kink costs little.
        """
        edges = np.clip(self.law.ppf(np.linspace(0, 1, panels + 1)), *self.interval)
        steps, weights = np.polynomial.legendre.leggauss(nodes)
        half = np.diff(edges)[:, None] / 2
        places = (edges[:-1, None] + half) + half * steps
        return places.ravel(), np.log(half * weights).ravel()


TARGETS = {
    target.name: target
    for target in (
        Target("gumbel", "Gumbel(0, 1)", stats.gumbel_r()),
        Target("laplace", "Laplace(0, 1)", stats.laplace()),
        Target("gamma", "Gamma(2, 1)", stats.gamma(2.0)),
        Target("beta", "Beta(2, 5)", stats.beta(2.0, 5.0)),
        Target("half-normal", "half-normal(1)", stats.halfnorm()),
        Target("skew-normal", "skew-normal(0, 1, 4)", stats.skewnorm(4.0)),
    )
}


def normalised(log_density: Array, grid: Array) -> Array:
    """The exponential of `log_density` `(n,)` over its integral on the grid `(n,)` by the trapezoidal rule.

    Example:
        >>> grid = np.linspace(0.0, 2.0, 5)
        >>> normalised(np.full(5, 7.0), grid).tolist()
        [0.5, 0.5, 0.5, 0.5, 0.5]
    """
    density: Array = np.exp(log_density - log_density.max())
    density /= np.trapezoid(density, grid)
    return density


def total_variation(density: Array, target: Target, grid: Array) -> float:
    """½∫|p − q| on the grid `(n,)` of a density `(n,)`, both normalised there; between 0 and 1.

    Example:
        >>> target = TARGETS["beta"]
        >>> total_variation(target.density(target.grid()), target, target.grid())
        0.0
    """
    truth, density = (one / np.trapezoid(one, grid) for one in (target.density(grid), density))
    return float(np.trapezoid(np.abs(truth - density), grid) / 2)


def kullback_leibler(density: Array, target: Target, grid: Array) -> float:
    """∫ p log(p/q) on the grid, both normalised there, in nats.

    Example:
        >>> target = TARGETS["beta"]
        >>> kullback_leibler(target.density(target.grid()), target, target.grid())
        0.0
    """
    truth, density = (one / np.trapezoid(one, grid) for one in (target.density(grid), density))
    floor = np.finfo(np.float64).tiny
    return float(np.trapezoid(xlogy(truth, np.maximum(truth, floor) / np.maximum(density, floor)), grid))
