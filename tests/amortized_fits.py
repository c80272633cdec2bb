"""Small, quick amortised posteriors and problems whose posterior is known; shared by the tests."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from ot_lift.amortized import AmortizedPosterior

Array = npt.NDArray[np.float64]

# A few steps of a small network: what a test needs that is not about the quality of a long fit.
QUICK: dict[str, Any] = {
    "hidden_features": (8, 8),
    "context_hidden_features": (8,),
    "max_steps": 12,
    "batch_size": 64,
    "random_state": 0,
}


def quick(**options: Any) -> AmortizedPosterior:
    """A posterior that fits in a fraction of a second."""
    return AmortizedPosterior(**{**QUICK, **options})


@dataclass(frozen=True)
class Linear:
    """θ ~ N(m, I), y = Hθ + noise: the posterior is Gaussian."""

    matrix: Array
    noise: float
    mean: float = 2.0

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Array, Array]:
        k, d = self.matrix.shape
        theta = self.mean + rng.normal(size=(count, d))
        return theta, theta @ self.matrix.T + self.noise * rng.normal(size=(count, k))

    def covariance(self) -> Array:
        return np.linalg.inv(np.eye(self.matrix.shape[1]) + self.matrix.T @ self.matrix / self.noise**2)

    def centre(self, y: Array) -> Array:
        """Posterior means ``(n, d)``."""
        return (
            self.mean
            + (y - self.matrix @ np.full(self.matrix.shape[1], self.mean))
            @ (self.matrix / self.noise**2)
            @ self.covariance()
        )

    def log_prob(self, theta: Array, y: Array) -> Array:
        law = stats.multivariate_normal(np.zeros(theta.shape[1]), self.covariance())
        return np.asarray(law.logpdf(theta - self.centre(y))).reshape(len(theta))


def curved(count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """θ given y is a log-gamma variable, and a normal one about it: curved, skewed and of changing width."""
    y = rng.normal(size=(count, 1))
    width = np.exp(0.3 * y[:, 0])
    first = y[:, 0] + width * np.log(rng.gamma(3.0, size=count))
    second = y[:, 0] ** 2 + 0.5 * first + 0.5 * width * rng.normal(size=count)
    return np.column_stack([first, second]), y


def curved_log_prob(theta: Array, y: Array) -> Array:
    """Log p(θ|y) of `curved`."""
    width = np.exp(0.3 * y[:, 0])
    first = stats.loggamma(3.0, loc=y[:, 0], scale=width).logpdf(theta[:, 0])
    return np.asarray(first + stats.norm(y[:, 0] ** 2 + 0.5 * theta[:, 0], 0.5 * width).logpdf(theta[:, 1]))


@dataclass(frozen=True)
class Fitted:
    """A fitted posterior with its pairs. Shared between tests: never refit or change it."""

    posterior: AmortizedPosterior
    theta: Array
    y: Array


LINEAR = Linear(np.array([[1.0, 0.5], [0.0, 2.0], [1.0, -1.0]]), 0.5)


@cache
def linear_fit() -> Fitted:
    """Of a linear model with Gaussian noise: the Gaussian conditional is kept."""
    theta, y = LINEAR.draw(4000, np.random.default_rng(1))
    return Fitted(quick().fit(theta, y), theta, y)


@cache
def curved_fit() -> Fitted:
    """Of a curved, skewed posterior: a network is needed, and used."""
    theta, y = curved(4000, np.random.default_rng(2))
    options = {"hidden_features": (16, 16), "context_hidden_features": (32,), "max_steps": 200, "batch_size": 256}
    posterior = quick(**options).fit(theta, y)
    assert posterior.used_network_
    return Fitted(posterior, theta, y)


FITS = {"start kept": linear_fit, "network used": curved_fit}
