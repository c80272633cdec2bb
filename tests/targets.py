"""Targets whose answers are known, for the tests of posterior maps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus


@dataclass
class Density:
    """A target from a function, with the log of its integral where that is known."""

    dim: int
    log_density: Callable[[Tensor], Tensor]
    log_evidence: float = math.nan


@dataclass
class LinearModel:
    """y = Xθ + ε, ε ~ N(0, σ²), θ ~ N(0, s²I): posterior and evidence in closed form (Bishop 2006, §3.3)."""

    X: np.ndarray
    y: np.ndarray
    noise: float
    scale: float
    dim: int = field(init=False)

    def __post_init__(self) -> None:
        self.dim = self.X.shape[1]
        precision = self.X.T @ self.X / self.noise**2 + np.eye(self.dim) / self.scale**2
        self.covariance = np.linalg.inv(precision)
        self.mean = self.covariance @ self.X.T @ self.y / self.noise**2
        marginal = self.noise**2 * np.eye(len(self.y)) + self.scale**2 * self.X @ self.X.T
        whole = torch.distributions.MultivariateNormal(torch.zeros(len(self.y)).double(), torch.from_numpy(marginal))
        self.log_evidence = float(whole.log_prob(torch.from_numpy(self.y)))

    def log_density(self, x: Tensor) -> Tensor:
        response, rows = torch.from_numpy(self.y), torch.from_numpy(self.X)
        likelihood = torch.distributions.Normal(x @ rows.T, self.noise).log_prob(response).sum(-1)
        return likelihood + torch.distributions.Normal(0.0, self.scale).log_prob(x).sum(-1)


def linear_model(features: int = 3, rows: int = 20) -> LinearModel:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, features)) * 10.0 ** np.arange(features)  # units of very different sizes
    return LinearModel(X, X @ (1.0 / 10.0 ** np.arange(features)) + rng.normal(size=rows), noise=0.5, scale=2.0)


def gumbel(dim: int) -> Density:
    """Independent standard Gumbel coordinates: mean γ, variance π²/6, normalised."""
    return Density(dim, lambda x: (-x - torch.exp(-x)).sum(-1), 0.0)


def logistic(dim: int) -> Density:
    """Independent standard logistic coordinates: normalised, with exponential tails."""
    return Density(dim, lambda x: (-x - 2 * softplus(-x)).sum(-1), 0.0)


def log_gamma(dim: int) -> Density:
    """Logs of Gamma(3, 1) variables: log Γ(3) each."""
    return Density(dim, lambda x: (3 * x - x.exp()).sum(-1), dim * math.log(2.0))


def two_modes(dim: int, distance: float) -> Density:
    """Equal mixture of N(±c, I), the centres at a distance from each other along the diagonal; the integral is 2."""
    centre = 0.5 * distance / math.sqrt(dim)

    def log_density(x: Tensor) -> Tensor:
        halves = [-0.5 * (x - sign * centre).square().sum(-1) for sign in (1, -1)]
        return torch.logaddexp(*halves) - 0.5 * dim * math.log(2 * math.pi)

    return Density(dim, log_density, math.log(2.0))


def funnel(dim: int) -> Density:
    """Neal's funnel: v ~ N(0, 9), x | v ~ N(0, exp(v) I)."""

    def log_density(x: Tensor) -> Tensor:
        v, rest = x[..., 0], x[..., 1:]
        return -v.square() / 18 - 0.5 * rest.square().sum(-1) * torch.exp(-v) - 0.5 * (dim - 1) * v

    return Density(dim, log_density)


def cauchy(dim: int) -> Density:
    """Independent Cauchy coordinates: neither a mean nor a variance."""
    return Density(dim, lambda x: -torch.log1p(x.square()).sum(-1), dim * math.log(math.pi))
