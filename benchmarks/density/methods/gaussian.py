"""One Gaussian by maximum likelihood: what every other density has to beat."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import numpy as np
from scipy.stats import multivariate_normal

from benchmarks.density import BaseDensityMethod, DensityMethod, DensityTask
from benchmarks.tasks import Array


class GaussianMethod(BaseDensityMethod):
    """Mean and covariance of the points.

    Example:
        >>> method = GaussianMethod().fit(np.array([[-1.0], [1.0]]), random_state=0, max_seconds=1.0)
        >>> method.log_prob(np.array([[0.0]])).round(3).tolist()  # of N(0, 1): −½ log 2π
        [-0.919]
    """

    name = "Gaussian"

    def fit(self, X: Array, *, random_state: int, max_seconds: float) -> Self:
        """Nothing is random, and no budget is needed."""
        covariance = np.atleast_2d(np.cov(X, rowvar=False, bias=True))
        self._law = multivariate_normal(X.mean(0), covariance)
        return self

    def log_prob(self, X: Array) -> Array:
        """Log-density `(k,)`."""
        return np.atleast_1d(self._law.logpdf(X))

    def sample(self, count: int, *, random_state: int) -> Array:
        """Draws `(count, features)`."""
        return np.asarray(self._law.rvs(count, random_state=random_state)).reshape(count, -1)


def methods(task: DensityTask) -> Iterable[DensityMethod]:
    """It has no settings."""
    return [GaussianMethod()]
