"""Log-concave densities in any dimension that are known with their entropies: products, rotations and a ridge."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.special import digamma
from scipy.stats import ortho_group
from torch import Tensor

from benchmarks.experiments.densities1d import TARGETS

_MARGINALS = ("gumbel", "gamma", "skew-normal")  # by turns
_ROTATION_SEED = 0


@dataclass(frozen=True)
class LogConcave(ABC):
    """A log-concave density.

    Attributes:
        features: d.
    """

    features: int

    @abstractmethod
    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Independent points `(count, features)`, float64."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density `(n,)` at `(n, features)`, nats; −∞ outside the support."""

    @property
    @abstractmethod
    def entropy(self) -> float:
        """−∫p log p, nats."""


class Product(LogConcave):
    """Independent Gumbel, Gamma and skew-normal coordinates by turns, of mean 0 and variance 1.

    Example:
        >>> x = Product(4).sample(5, torch.Generator().manual_seed(0))
        >>> x.shape, Product(4).log_prob(x).shape
        (torch.Size([5, 4]), torch.Size([5]))
    """

    def _laws(self) -> list[tuple[Any, float, float]]:
        """SciPy's law of every coordinate, its mean and its deviation."""
        laws = [TARGETS[_MARGINALS[k % len(_MARGINALS)]].law for k in range(self.features)]
        return [(law, float(law.mean()), float(law.std())) for law in laws]

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        rng = np.random.default_rng(int(torch.randint(1 << 62, (), generator=generator)))
        columns = [(law.rvs(size=count, random_state=rng) - mean) / std for law, mean, std in self._laws()]
        return torch.from_numpy(np.stack(columns, 1))

    def log_prob(self, x: Tensor) -> Tensor:
        points = x.double().numpy()
        values = [law.logpdf(mean + std * points[:, k]) for k, (law, mean, std) in enumerate(self._laws())]
        return torch.from_numpy(np.sum(values, 0)) + sum(math.log(std) for _, _, std in self._laws())

    @property
    def entropy(self) -> float:
        return sum(float(law.entropy()) - math.log(std) for law, _, std in self._laws())


class Rotated(Product):
    """The product, rotated at random: the same rotation of a dimension every time."""

    @cached_property
    def rotation(self) -> Tensor:
        """Orthogonal, `(features, features)`."""
        return torch.from_numpy(ortho_group.rvs(self.features, random_state=_ROTATION_SEED))

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        return super().sample(count, generator) @ self.rotation.T

    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x.double() @ self.rotation)


class Ridge(LogConcave):
    """x = (g₁ − g₀, …, g_d − g₀) of independent Gumbel variables: no rotation makes it a product.

    Its energy Σxₖ + (d + 1)·log(1 + Σexp(−xₖ)) − log d! bends from one of d + 1 planes to another, along ridges.

    References:
        Malik & Abraham (1973), "Multivariate logistic distributions", Annals of Statistics 1(3), 588–590.

    Example:
        >>> round(Ridge(1).log_prob(torch.zeros(1, 1)).exp().item(), 6)  # logistic
        0.25
        >>> round(Ridge(1).entropy, 6)
        2.0
    """

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        logarithms = torch.empty(count, self.features + 1, dtype=torch.float64).exponential_(generator=generator).log()
        return logarithms[:, :1] - logarithms[:, 1:]  # a Gumbel variable is −log of an exponential one

    def log_prob(self, x: Tensor) -> Tensor:
        planes = torch.cat([x.new_zeros(len(x), 1), -x], 1).double()
        return math.lgamma(self.features + 1) + planes.sum(1) - (self.features + 1) * torch.logsumexp(planes, 1)

    @property
    def entropy(self) -> float:
        d = self.features  # 1 + Σexp(−xₖ) is a sum of d + 1 exponential variables over one of them
        return (d + 1) * (float(digamma(d + 1)) + float(np.euler_gamma)) - math.lgamma(d + 1)


FAMILIES: dict[str, type[LogConcave]] = {"product": Product, "rotated": Rotated, "ridge": Ridge}
