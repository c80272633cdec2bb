"""The Gaussian conditional: parameters regressed linearly on the context, as coordinates of both."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from ot_lift.data import as_batch
from ot_lift.errors import DataError
from ot_lift.estimators import numbers_of
from ot_lift.flows_whitening import Whitening
from ot_lift.sides import Side
from ot_lift.standardizer import Standardizer

# Less residual variance than this share of a parameter's own is rounding.
_DETERMINED = 1e-12


@dataclass(frozen=True)
class Regression(Whitening):
    """Coordinates of rows (θ, y) in which θ given y is N(0, I) if both are jointly Gaussian.

    The first ``parameters`` columns become the whitened residual P(θ − m − Bỹ) of the regression of θ on y, the others
    the whitened context ỹ.

    Attributes:
        parameters: columns of θ.

    Example:
        >>> covariance = torch.tensor([[5.0, 4.0], [4.0, 4.0]])  # y ~ N(0, 4), θ given y is N(y, 1)
        >>> units = Regression.of_joint_moments(torch.zeros(2), covariance, parameters=1)
        >>> [round(number, 6) for number in units.coordinates.source(torch.tensor([[5.0, 2.0]]))[0].tolist()]
        [3.0, 1.0]
        >>> abs(round(units.log_volume, 6))  # θ given y has a variance of 1
        0.0
    """

    parameters: int

    @property
    def log_volume(self) -> float:
        """Log of |det P|."""
        d = self.parameters
        return float(torch.linalg.slogdet(self.coordinates.matrix[:d, :d]).logabsdet)

    @classmethod
    def on(cls, side: Side, *, parameters: int) -> Self:
        """Of the training part of rows (θ, y); of few, with the shrinkage that held-out ones like best."""
        return cls.best(
            side,
            lambda covariance, share: cls.of_joint_moments(side.mean, covariance, parameters=parameters, share=share),
        )

    @classmethod
    def of_joint_moments(cls, mean: Tensor, covariance: Tensor, *, parameters: int, share: float = 0.0) -> Self:
        """Of the mean ``(d + k,)`` and covariance of rows (θ, y); ``share`` in [0, 1] draws correlations towards none.

        Constant columns of θ, or some that the others determine, are treated as :class:`Whitening` does.
        """
        d, mean, covariance = parameters, mean.double(), covariance.double()
        covariance = torch.lerp(covariance, torch.diag(covariance.diagonal()), share)
        context = Whitening.of_moments(mean[d:], covariance[d:, d:]).coordinates
        slope = covariance[:d, d:] @ context.matrix.T
        own_covariance = covariance[:d, :d]
        floor = _DETERMINED * torch.diag(own_covariance.diagonal())
        own = Whitening.of_moments(mean[:d], own_covariance - slope @ slope.T + floor)
        whiten, spread = own.coordinates.matrix, own.coordinates.inverse
        below = mean.new_zeros(len(mean) - d, d)
        matrix = torch.cat(
            [torch.cat([whiten, -whiten @ slope @ context.matrix], 1), torch.cat([below, context.matrix], 1)]
        )
        inverse = torch.cat([torch.cat([spread, slope], 1), torch.cat([below, context.inverse], 1)])
        blur = None
        if own.blur is not None:
            blur = torch.block_diag(own.blur, torch.zeros_like(context.matrix))
        return cls(Standardizer(mean, torch.zeros_like(mean), matrix, inverse, mean.new_ones(())), blur, share, d)

    def _latent(self, x: Tensor) -> Tensor:
        return self.coordinates.source(x)[:, : self.parameters]


def side_by_side(theta: Any, y: Any) -> tuple[Any, int]:
    """Rows (θ, y) as one array or one sampler, and how many of the columns are θ's.

    Args:
        theta: ``(n, d)``, or a simulator: of a count and a generator, that many pairs θ and y.
        y: ``(n, k)``; None with a simulator.

    Returns:
        ``(n, d + k)``, float64 on the CPU, or a sampler of such rows; and d.

    Raises:
        DataError: if one is not finite real numbers of that shape, or they differ in rows.

    Example:
        >>> side_by_side([[1, 2]], [[3]])
        (tensor([[1., 2., 3.]], dtype=torch.float64), 2)
    """
    if not callable(theta):
        return _joined(theta, y)
    if y is not None:
        raise DataError("expected y to be left out with a simulator, which gives θ and y, got both")

    def pairs(count: int, generator: torch.Generator) -> tuple[Tensor, int]:
        given = theta(count, generator)
        if not (isinstance(given, tuple | list) and len(given) == 2):
            raise DataError(f"expected the simulator to return the pair (theta, y), got a {type(given).__name__}")
        return _joined(*given)

    @functools.wraps(theta, updated=())
    def sampler(count: int, generator: torch.Generator) -> Tensor:
        return pairs(count, generator)[0]

    return sampler, pairs(2, torch.Generator().manual_seed(0))[1]


def _joined(theta: Any, y: Any) -> tuple[Tensor, int]:
    first, _ = as_batch(numbers_of(theta), name="theta")
    second, _ = as_batch(numbers_of(y), name="y")
    if len(first) != len(second):
        raise DataError(f"expected a row of y for every row of theta, got {len(first)} of theta and {len(second)} of y")
    return torch.cat([first.cpu().double(), second.cpu().double()], 1), first.shape[1]
