"""Coordinates in which points have mean 0 and covariance I, so that a method's settings need no units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.tasks import Array

_LEAST = 1e-12  # of the largest variance, with columns in units of their deviations


@dataclass(frozen=True)
class Whitened:
    """x = m + zRᵀ.

    Attributes:
        mean: m, `(d,)`.
        root: R, `(d, d)`.
        log_volume: log |det R|: a density in x is that in z less this, in nats.

    Example:
        >>> units = Whitened.of(np.array([[1.0], [5.0]]))
        >>> units.to_latent(np.array([[5.0]])).tolist(), round(units.log_volume, 3)  # log 2
        ([[1.0]], 0.693)
    """

    mean: Array
    root: Array
    log_volume: float

    @classmethod
    def of(cls, points: Array) -> Whitened:
        """By the mean and covariance of points `(n, d)`."""
        mean, scale = points.mean(0), points.std(0)
        values, vectors = np.linalg.eigh(np.atleast_2d(np.cov((points - mean) / scale, rowvar=False, bias=True)))
        deviations = np.sqrt(np.maximum(values, _LEAST * values[-1]))
        return cls(mean, scale[:, None] * vectors * deviations, float(np.log(deviations).sum() + np.log(scale).sum()))

    def to_latent(self, points: Array) -> Array:
        """Z of x, `(n, d)`."""
        return np.asarray(np.linalg.solve(self.root, (points - self.mean).T).T, dtype=np.float64)

    def to_data(self, latent: Array) -> Array:
        """The points of z, `(n, d)`."""
        return self.mean + latent @ self.root.T
