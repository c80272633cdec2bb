"""Coordinates in which data have mean 0 and covariance I, whatever their units and however few or flat they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from ot_lift.batches import Batches
from ot_lift.likelihood import blurred
from ot_lift.sides import Side
from ot_lift.standardizer import Standardizer, weighted_moments

# An eigenvalue of the correlations below this is a direction in which the data are flat.
_FLOOR = 1e-10
# With fewer points a column the correlations are drawn towards none, by what the held-out points like best.
_SHRINK_BELOW = 20
_SHARES = (0.0, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0)


@dataclass(frozen=True)
class Whitening:
    """x̃ = M(x − m) with M a square root of the inverse covariance: the Gaussian fit, as coordinates.

    Attributes:
        coordinates: M, M⁻¹ and m as the source side of a :class:`~ot_lift.standardizer.Standardizer`.
        blur: root of the covariance ``(d, d)`` that flat directions lack, or None. A density has none where the data
            are flat; with noise of this covariance they are N(0, 1) there, of a relative width of 1e-5.
        share: in [0, 1], by which correlations were drawn towards none.

    Example:
        >>> units = Whitening.of_moments(torch.zeros(1), torch.tensor([[4.0]]))
        >>> units.coordinates.source(torch.tensor([[6.0]])).item(), round(units.log_volume, 6)  # −log 2
        (3.0, -0.693147)
    """

    coordinates: Standardizer
    blur: Tensor | None
    share: float

    @property
    def log_volume(self) -> float:
        """Log of |det M|."""
        return float(torch.linalg.slogdet(self.coordinates.matrix).logabsdet)

    @classmethod
    def of(cls, side: Side) -> Whitening:
        """Of the training part of some data; of few points, with the shrinkage that its held-out points like best."""
        return cls.best(side, lambda covariance, share: cls.of_moments(side.mean, covariance, share=share))

    @classmethod
    def best(cls, side: Side, make: Callable[[Tensor, float], Self]) -> Self:
        """What a function of a covariance ``(d, d)`` and of a share in [0, 1] makes of the training part.

        With enough points the share is 0, else the one of a few whose Gaussian the held-out points like best.
        """
        covariance = side.covariance
        if side.train is None:
            return make(covariance, 0.0)
        size = float(len(side.train))
        if side.weight is None:  # afresh: what a side says of few points is shrunk in the units of the data
            covariance = weighted_moments(side.rows, index=side.train)[1]
        else:
            size = float(side.weight.sum() ** 2 / side.weight.square().sum())
        if size >= _SHRINK_BELOW * side.rows.features:
            return make(covariance, 0.0)
        weight = torch.ones(len(side.stop)).double() if side.stop_weight is None else side.stop_weight
        candidates = [make(covariance, share) for share in _SHARES]
        return max(candidates, key=lambda units: units._gaussian_log_likelihood(side.stop, weight))

    @classmethod
    def of_moments(cls, mean: Tensor, covariance: Tensor, *, share: float = 0.0) -> Whitening:
        """Of a mean ``(d,)`` and a covariance ``(d, d)``; ``share`` in [0, 1] draws the correlations towards none.

        A column that is constant up to rounding counts as one of the size of its mean (or 1) and no variance.
        """
        mean, covariance = mean.double(), covariance.double()
        rounding = 16 * torch.finfo(torch.float64).eps * mean.abs()
        deviation = covariance.diagonal().clamp_min(0).sqrt()
        flat = deviation <= rounding
        size = torch.where(flat, torch.where(mean == 0, 1.0, mean.abs()), deviation)
        moving = (~flat).double()
        correlation = covariance / torch.outer(size, size) * torch.outer(moving, moving)
        values, vectors = torch.linalg.eigh(torch.lerp(correlation, torch.diag(moving), share))
        raised = values.clamp_min(_FLOOR)
        matrix = (vectors / raised.sqrt()) @ vectors.T / size
        inverse = size[:, None] * ((vectors * raised.sqrt()) @ vectors.T)
        lacking = 1 - values.clamp_min(0) / raised
        blur = (vectors * lacking.sqrt()) @ vectors.T if bool((lacking > 0).any()) else None
        return cls(Standardizer(mean, torch.zeros_like(mean), matrix, inverse, mean.new_ones(())), blur, share)

    def of_all(self, side: Side) -> Whitening:
        """The same, of all rows of a side, held-out ones too; the share stays as these liked it best."""
        return Whitening.of_moments(*side.moments(), share=self.share)

    def points(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Points ``(n, d)`` of the data in whitened coordinates, with the blur, float64."""
        return blurred(self.coordinates.source(x), self.blur, generator)

    def batches(self, side: Side, home: Tensor, *, batch_size: int, generator: torch.Generator) -> Batches:
        """Mini-batches of the training part in whitened coordinates, of the dtype and on the device of ``home``."""

        def whiten(x: Tensor) -> Tensor:
            return self.coordinates.source(x.cpu()).to(home)

        return side.batches(whiten, batch_size=batch_size, generator=generator)

    def _gaussian_log_likelihood(self, x: Tensor, weight: Tensor) -> float:
        squares = self._latent(x).square().sum(1)
        mean = float((squares * weight).sum() / weight.sum())
        return self.log_volume - 0.5 * mean if math.isfinite(mean) else -math.inf

    def _latent(self, x: Tensor) -> Tensor:
        """What is N(0, I) of points ``(n, d)`` that are Gaussian."""
        return self.coordinates.source(x)
