"""Small, quick fits and the pairs of distributions whose optimal map is known; shared by the tests of BrenierMap."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt

from ot_lift import BrenierMap
from ot_lift.training import TrainingOptions

Array = npt.NDArray[np.float64]

# A few steps of a small network: what a test needs that is not about the quality of a long fit.
QUICK: dict[str, Any] = {"hidden_features": (8, 8), "max_steps": 12, "batch_size": 64, "random_state": 0}


def quick(**options: Any) -> BrenierMap:
    """A map that fits in a fraction of a second."""
    return BrenierMap(**{**QUICK, **options})


def root(matrix: Array) -> Array:
    """Symmetric square root of a positive definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(values)) @ vectors.T)


@dataclass(frozen=True)
class Gaussians:
    """N(0, A) and N(b, B); the optimal map between them is x ↦ b + Qx (Dowson & Landau 1982)."""

    source: Array
    target: Array
    shift: Array

    @classmethod
    def random(cls, features: int, rng: np.random.Generator, *, condition: float = 100.0) -> Gaussians:
        """Covariances of the given condition number in random directions, means two apart in every column."""

        def covariance() -> Array:
            vectors = np.linalg.qr(rng.normal(size=(features, features)))[0]
            spectrum = np.geomspace(1.0, condition, features) if features > 1 else rng.uniform(0.5, 2.0, 1)
            return np.asarray((vectors * spectrum) @ vectors.T)

        return cls(covariance(), covariance(), np.full(features, 2.0))

    @property
    def features(self) -> int:
        return len(self.shift)

    @property
    def matrix(self) -> Array:
        """Q."""
        half = root(self.source)
        inverse = np.linalg.inv(half)
        return inverse @ root(half @ self.target @ half) @ inverse

    @property
    def w2_squared(self) -> float:
        half = root(self.source)
        bures = np.trace(self.source + self.target - 2 * root(half @ self.target @ half))
        return float(self.shift @ self.shift + bures)

    def x(self, rows: int, rng: np.random.Generator) -> Array:
        return np.asarray(rng.normal(size=(rows, self.features)) @ root(self.source))

    def y(self, rows: int, rng: np.random.Generator) -> Array:
        return np.asarray(self.shift + rng.normal(size=(rows, self.features)) @ root(self.target))

    def transport(self, x: Array) -> Array:
        return np.asarray(self.shift + x @ self.matrix)


@dataclass(frozen=True)
class Fitted:
    """A fitted map with the data it was fitted on. Shared between tests: never refit or change it."""

    map: BrenierMap
    X: Array
    Y: Array


@cache
def gaussian_fit() -> Fitted:
    """Between two Gaussians in the plane: the start is kept."""
    rng = np.random.default_rng(1)
    pair = Gaussians.random(2, rng, condition=4.0)
    X, Y = pair.x(400, rng), pair.y(500, rng)
    return Fitted(quick().fit(X, Y), X, Y)


def bent(rows: int, rng: np.random.Generator) -> Array:
    """Independent exponential columns: the optimal map from N(0, I) takes each column to its quantile."""
    return np.asarray(rng.exponential(size=(rows, 2)))


@cache
def bent_fit() -> Fitted:
    """From a Gaussian to exponentials in the plane: a network is needed, and used."""
    rng = np.random.default_rng(2)
    X, Y = rng.normal(size=(1500, 2)), bent(1200, rng)
    fitted = quick(hidden_features=(16, 16), max_steps=120, batch_size=256).fit(X, Y)
    assert fitted.used_network_
    return Fitted(fitted, X, Y)


def resumable_fit(folder: str | Path, *, steps: int, seconds: float) -> BrenierMap:
    """A fit with a checkpoint every so many seconds; the tests run it here and in processes that they kill."""
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(400, 2)), bent(300, rng)
    options = partial(TrainingOptions, checkpoint_seconds=seconds, evaluate_every=20)
    with mock.patch("ot_lift.estimators.TrainingOptions", options):
        return quick(max_steps=steps, patience=None, start="identity").fit(X, Y, resume=folder)
