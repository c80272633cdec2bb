"""The integral of exp(−E), E convex: a lattice rule in one and two dimensions, importance sampling above."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ot_lift.maps import in_blocks

QUADRATURE_UP_TO = 2  # dimensions

Energy = Callable[[Tensor], Tensor]

# Sizes of the lattices: in two dimensions Fibonacci numbers, each with the one before it as its generator.
_SIZES = {1: (1 << 10, 1 << 12, 1 << 14, 1 << 16), 2: (17711, 46368, 121393, 317811)}
_GENERATOR = 0.6180339887498949  # the golden ratio's: F(k−1)/F(k), to rounding in F(k)
_ENOUGH = 1e-8
_DROP = 34.0  # nats below the peak that an integral leaves out: 2e-15 of it
_COARSE = {1: 257, 2: 49}  # points a side of the grids that find where the mass is
_PLACINGS = 60


@dataclass(frozen=True)
class Normalizer:
    """Log of Z = ∫exp(−E), how well it is known, and how it was found.

    Attributes:
        log_value: log Z, nats.
        standard_error: of ``log_value``; of a quadrature, the change at its last refinement.
        effective_sample_size: (Σw)²/Σw² of the importance weights w, or None where nothing was drawn.
        points: at which E was evaluated.
        method: ``"quadrature"``, ``"importance sampling"`` or ``"closed form"``.
    """

    log_value: float
    standard_error: float
    effective_sample_size: float | None
    points: int
    method: str

    @property
    def bias(self) -> float:
        """Expected error of ``log_value``, −½·standard_error² of importance sampling: a mean's log is too low.

        A density with this Z is on average too high by as much.

        Example:
            >>> Normalizer(0.0, 0.1, 500.0, 1000, "importance sampling").bias
            -0.005000000000000001
        """
        return -0.5 * self.standard_error**2 if self.effective_sample_size is not None else 0.0

    def plus(self, shift: float) -> Normalizer:
        """The same with ``log_value`` shifted: Z in other units."""
        return replace(self, log_value=self.log_value + shift)


def lattice(features: int, size: int, shift: Tensor) -> Tensor:
    """A rank-one lattice in the unit cube of one or two dimensions, shifted modulo 1, ``(size, features)``.

    Over functions that vanish at the cube's sides its mean converges to the integral faster than any power of ``size``
    allows for their smoothness; with a uniform ``shift`` it is unbiased.

    Args:
        features: 1: equal steps; 2: the Fibonacci lattice if ``size`` is a Fibonacci number.
        size: how many points.
        shift: ``(features,)``, in [0, 1).

    References:
        Sloan & Joe 1994, "Lattice Methods for Multiple Integration"; Cranley & Patterson 1976.

    Example:
        >>> lattice(1, 4, torch.tensor([0.125]).double()).flatten().tolist()
        [0.125, 0.375, 0.625, 0.875]
        >>> lattice(2, 5, torch.zeros(2).double())[:, 1].mul(5).round().tolist()  # multiples of 3 modulo 5
        [0.0, 3.0, 1.0, 4.0, 2.0]
    """
    index = torch.arange(size, dtype=shift.dtype, device=shift.device)
    steps = [1.0, float(round(size * _GENERATOR))][:features]
    return torch.stack([(index * step).remainder(size) / size for step in steps], 1).add(shift).remainder(1.0)


def place(energy: Energy, features: int, *, drop: float = _DROP) -> Tensor:
    """The box that holds every point at which a convex energy is within ``drop`` of its least value.

    Grids that grow while the set touches a side and then shrink onto it: a convex set has no parts that a grid around
    one of them could miss.

    Args:
        energy: ``(n, features)`` → ``(n,)``, convex, in coordinates in which its scale is about 1.
        features: 1 or 2.
        drop: nats.

    Returns:
        Lower and upper corner ``(2, features)``, float64.

    Example:
        >>> [round(edge) for edge in place(lambda x: 0.5 * (x[:, 0] - 3) ** 2, 1, drop=50.0).flatten().tolist()]
        [-7, 13]
    """
    low, high = torch.full((features,), -8.0).double(), torch.full((features,), 8.0).double()
    count = _COARSE[features]
    for _ in range(_PLACINGS):
        sides = [torch.linspace(a, b, count, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
        grid = torch.cartesian_prod(*sides).reshape(-1, features)
        values = in_blocks(energy, grid)
        inside = grid[values <= values.min() + drop]
        step, width = (high - low) / (count - 1), high - low
        least, most = inside.amin(0), inside.amax(0)
        below, above = least <= low + 0.5 * step, most >= high - 0.5 * step
        if bool((below | above).any()):  # the least value may lie outside: nothing is given up yet
            low, high = torch.where(below, low - width, low), torch.where(above, high + width, high)
            continue
        low, high = least - step, most + step
        if bool((high - low > 0.9 * width).all()):
            break
    return torch.stack([low, high])


def on_lattice(box: Tensor, size: int, shift: Tensor) -> tuple[Tensor, float]:
    """Points ``(size, features)`` of a shifted lattice in a box, and the log of the volume that each stands for.

    Example:
        >>> points, log_volume = on_lattice(torch.tensor([[0.0], [8.0]]).double(), 4, torch.tensor([0.5]).double())
        >>> points.flatten().tolist(), round(log_volume, 6)  # log 2
        ([4.0, 6.0, 0.0, 2.0], 0.693147)
    """
    width = box[1] - box[0]
    points = box[0] + width * lattice(len(width), size, shift)
    return points, float(width.log().sum()) - math.log(size)


def quadrature(energy: Energy, features: int, *, tolerance: float = _ENOUGH) -> Normalizer:
    """Log of ∫exp(−E) by lattices that are refined until it no longer changes.

    Args:
        energy: ``(n, features)`` → ``(n,)``, convex, in coordinates in which its scale is about 1.
        features: 1 or 2.
        tolerance: a change of log Z between two lattices that ends their growth.

    Example:
        >>> found = quadrature(lambda x: 0.5 * x.square().sum(1), 2)
        >>> round(found.log_value, 6)  # log 2π
        1.837877
    """
    box = place(energy, features)
    values: list[float] = []
    for size in _SIZES[features]:
        points, log_volume = on_lattice(box, size, torch.full((features,), 0.5 / size).double())
        values.append(float(torch.logsumexp(-in_blocks(energy, points), 0)) + log_volume)
        if len(values) > 1 and abs(values[-1] - values[-2]) < tolerance:
            break
    return Normalizer(values[-1], abs(values[-1] - values[-2]), None, size, "quadrature")


def importance_sampling(log_weight: Tensor) -> Normalizer:
    """Log of ∫exp(−E) from draws of a proposal q, with its standard error by the delta method.

    Args:
        log_weight: −E(y) − log q(y) of independent draws y, ``(n,)``.

    Example:
        >>> found = importance_sampling(torch.tensor([0.0, 0.0, 0.0]))
        >>> found.log_value, found.standard_error, found.effective_sample_size
        (0.0, 0.0, 3.0)
    """
    count, log_weight = len(log_weight), log_weight.double()
    log_value = float(torch.logsumexp(log_weight, 0)) - math.log(count)
    relative = (log_weight - log_value).exp()
    effective = float(relative.sum() ** 2 / relative.square().sum())
    return Normalizer(
        log_value,
        float(relative.std(correction=0)) / math.sqrt(max(1, count - 1)),
        effective,
        count,
        "importance sampling",
    )
