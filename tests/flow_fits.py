"""Small, quick density fits and the densities whose log-likelihood is known; shared by the tests of flows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ot_lift.flows import ConvexPotentialFlow

Array = npt.NDArray[np.float64]

# A few steps of a small network: what a test needs that is not about the quality of a long fit.
QUICK: dict[str, Any] = {"hidden_features": (8, 8), "max_steps": 12, "batch_size": 64, "random_state": 0}


def quick(**options: Any) -> ConvexPotentialFlow:
    """A flow that fits in a fraction of a second."""
    return ConvexPotentialFlow(**{**QUICK, **options})


@dataclass(frozen=True)
class Normal:
    """N(mean, AAᵀ) with its log-density."""

    mean: Array
    root: Array

    @classmethod
    def random(cls, features: int, rng: np.random.Generator, *, condition: float) -> Normal:
        """A covariance of the given condition number in random directions, far from the origin."""
        vectors = np.linalg.qr(rng.normal(size=(features, features)))[0]
        return cls(np.full(features, 5.0), vectors * np.geomspace(1.0, condition**0.5, features))

    def draw(self, rows: int, rng: np.random.Generator) -> Array:
        return np.asarray(self.mean + rng.normal(size=(rows, len(self.mean))) @ self.root.T)

    def log_prob(self, x: Array) -> Array:
        z = np.linalg.solve(self.root, (x - self.mean).T)
        log_volume = np.linalg.slogdet(self.root)[1]
        return np.asarray(-0.5 * (z**2).sum(0) - log_volume - 0.5 * len(self.mean) * np.log(2 * np.pi))


def bent(rows: int, rng: np.random.Generator) -> Array:
    """Points of X₁ ~ Gamma(2, 1), X₂ | X₁ ~ N(X₁², ½²): skewed and curved."""
    first = rng.gamma(2.0, size=rows)
    return np.column_stack([first, first**2 + 0.5 * rng.normal(size=rows)])


def bent_log_prob(x: Array) -> Array:
    """Log-density of `bent`."""
    first, second = x.T
    return np.asarray(np.log(first) - first - 2 * (second - first**2) ** 2 - 0.5 * np.log(0.5 * np.pi))


@dataclass(frozen=True)
class Fitted:
    """A fitted flow with the data it was fitted on. Shared between tests: never refit or change it."""

    flow: ConvexPotentialFlow
    X: Array


def gaussian_points() -> Array:
    """What `gaussian_fit` is of, for fits of a test's own."""
    rng = np.random.default_rng(1)
    return Normal.random(2, rng, condition=1e4).draw(400, rng)


def bent_points() -> Array:
    """What `bent_fit` is of, likewise."""
    return bent(1500, np.random.default_rng(2))


@cache
def gaussian_fit() -> Fitted:
    """Of a Gaussian in the plane: the start is kept."""
    X = gaussian_points()
    return Fitted(quick().fit(X), X)


@cache
def bent_fit(direction: str = "inverse", blocks: int = 1) -> Fitted:
    """Of a skewed and curved density in the plane: a network is needed, and used."""
    X = bent_points()
    steps = 60 if direction == "forward" else 120
    flow = quick(direction=direction, blocks=blocks, hidden_features=(16, 16), max_steps=steps, batch_size=256).fit(X)
    assert flow.used_network_
    return Fitted(flow, X)


FITS = {
    "start kept": gaussian_fit,
    "network used": bent_fit,
    "latent to data": lambda: bent_fit("forward"),
    "two blocks": lambda: bent_fit("inverse", 2),
    "two blocks, latent to data": lambda: bent_fit("forward", 2),
}
