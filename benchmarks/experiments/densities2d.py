"""Two independent coordinates of log-concave densities on the line, with a quadrature and distances by it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import xlogy

from benchmarks.experiments.densities1d import TARGETS, Array, Target

WINDOW = 8.0  # side of the pictures; less than 1% of the mass lies beyond
_PANELS_AND_NODES = {False: (3, 10), True: (8, 8)}  # in training; behind figures


@dataclass(frozen=True)
class PlaneTarget:
    """p(x, y) = p₁(x)·p₂(y) on a rectangle.

    Attributes:
        name: small letters and hyphens.
        title: with its parameters.
        across: p₁.
        up: p₂.

    Example:
        >>> gamma = PLANE_TARGETS["gamma"]
        >>> float(gamma.density(np.array([[1.0, 1.0]]))[0])  # its mode: e⁻²
        0.1353352832366127
    """

    name: str
    title: str
    across: Target
    up: Target

    def sample(self, count: int, rng: np.random.Generator) -> Array:
        """Independent points `(count, 2)`."""
        return np.stack([self.across.sample(count, rng), self.up.sample(count, rng)], 1)

    def density(self, x: Array) -> Array:
        """Of points `(n, 2)`, `(n,)`."""
        return self.across.density(x[:, 0]) * self.up.density(x[:, 1])

    def window(self, side: int) -> Array:
        """Evenly spaced points of [0, 8]², `(side², 2)`, the second coordinate running fastest."""
        return _product(*2 * [np.linspace(0, WINDOW, side)])

    def quadrature(self, *, fine: bool = False) -> tuple[Array, Array]:
        """Nodes `(n, 2)` and the logarithms of their weights: 900 of them to train with, 4,096 for figures.

        The product of the rules of both coordinates, with three panels of ten nodes or eight panels of eight.
        """
        panels, nodes = _PANELS_AND_NODES[fine]
        (x, log_x), (y, log_y) = (one.quadrature(panels, nodes) for one in (self.across, self.up))
        return _product(x, y), (log_x[:, None] + log_y).ravel()


PLANE_TARGETS = {"gamma": PlaneTarget("gamma", "two independent Gamma(2, 1)", TARGETS["gamma"], TARGETS["gamma"])}


def divergences(truth: Array, mass: Array) -> dict[str, float]:
    """Total variation ½∫|p − q| and ∫p log(p/q), nats, from the masses of p and q at the nodes of a quadrature.

    Example:
        >>> divergences(np.array([0.5, 0.5]), np.array([0.5, 0.5]))
        {'total_variation': 0.0, 'kullback_leibler': 0.0}
        >>> divergences(np.array([0.0, 1.0]), np.array([0.25, 0.75]))["total_variation"]
        0.25
    """
    floor = np.finfo(np.float64).tiny
    return {
        "total_variation": float(np.abs(truth - mass).sum() / 2),
        "kullback_leibler": float(xlogy(truth, np.maximum(truth, floor) / np.maximum(mass, floor)).sum()),
    }


def _product(x: Array, y: Array) -> Array:
    return np.stack([one.ravel() for one in np.meshgrid(x, y, indexing="ij")], 1)
