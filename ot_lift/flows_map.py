"""Gradient maps in a row, in whitened coordinates and in those of the data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.distributions import Transform, constraints

from ot_lift.conjugate import conjugate
from ot_lift.constrained import BoundPotential
from ot_lift.logdet import log_det_for_training, value_gradient_log_det
from ot_lift.potentials import Potential
from ot_lift.standardizer import Standardizer

DIRECTIONS = ("inverse", "forward")


class Blocks(nn.Module):
    r"""Gradient maps one after another, from whitened data to the latent, with their log-determinant.

    Args:
        potentials: strongly convex, one a block, all of the same dimension, in the order in which data pass.
        direction: ``"inverse"``: a block is x ↦ ∇φ(x); ``"forward"``: it is x ↦ ∇φ*(x), so that ∇φ takes the latent
            to the data, and every point of the data is solved for.

    Example:
        >>> from ot_lift.potentials import Quadratic
        >>> half = Quadratic(1)
        >>> half.set_quadratic_(torch.tensor([[0.5]]))
        >>> latent, log_det = Blocks([half, half])(torch.tensor([[8.0]]))
        >>> round(latent.item(), 5), round(log_det.item(), 5)  # log ¼
        (2.0, -1.38629)
        >>> round(Blocks([half, half]).invert(torch.tensor([[2.0]])).item(), 5)
        8.0
    """

    def __init__(self, potentials: Iterable[Potential], *, direction: str = "inverse") -> None:
        super().__init__()
        if direction not in DIRECTIONS:
            raise ValueError(f"expected direction 'inverse' or 'forward', got {direction!r}")
        self.direction = direction
        self.potentials = nn.ModuleList(potentials)

    def __iter__(self) -> Iterator[Potential]:
        for potential in self.potentials:
            assert isinstance(potential, Potential)  # for the type checker: what __init__ took
            yield potential

    def __len__(self) -> int:
        return len(self.potentials)

    def forward(self, x: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Images ``(n, features)`` and log |det| of the Jacobian ``(n,)`` of points ``(n, features)``.

        Args:
            x: whitened points.
            generator: source of probes for a log |det| to train on, as :func:`~ot_lift.logdet.log_det_for_training`
                gives it; None for the exact one.

        Raises:
            ConvergenceError: if a point cannot be solved for, or a Hessian is not positive definite.
        """

        def sweep(potential: Potential, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            if generator is None:
                return value_gradient_log_det(potential, at)
            return log_det_for_training(potential, at, generator=generator)

        total = x.new_zeros(len(x))
        for potential in self:
            if self.direction == "inverse":
                _, x, log_det = sweep(potential, x)
                total = total + log_det
            else:
                x = _solve(potential, x)
                total = total - sweep(potential, x)[2]
        return x, total

    def transport(self, x: Tensor) -> Tensor:
        """Images alone, ``(n, features)`` → ``(n, features)``."""
        for potential in self:
            x = potential.gradient(x) if self.direction == "inverse" else _solve(potential, x)
        return x

    def invert(self, z: Tensor) -> Tensor:
        """The points whose images are ``z``, ``(n, features)`` → ``(n, features)``.

        Raises:
            ConvergenceError: if a point cannot be solved for to tolerance.
        """
        for potential in reversed(list(self)):
            z = _solve(potential, z) if self.direction == "inverse" else potential.gradient(z)
        return z


def _solve(potential: Potential, y: Tensor) -> Tensor:
    """∇φ*(y), with its implicit gradient where autograd is on."""
    if torch.is_grad_enabled():
        # The backward pass reads the weights of now, when a training step has long put the module's own ones back.
        potential = BoundPotential(potential, dict(potential.named_parameters()))
    return conjugate(potential, y).argmax


class FlowMap(Transform):
    """The map from data to the latent N(0, I) as a bijective :class:`torch.distributions.Transform` of ℝᵈ.

    It whitens the data and applies the blocks, in float64. Its inverse and log-determinant are differentiable in the
    points and in the blocks' parameters.

    Args:
        blocks: in whitened coordinates; kept in float64.
        coordinates: whose source side is the whitening.
        cache_size: as in torch.

    Example:
        >>> from ot_lift.flows_whitening import Whitening
        >>> from ot_lift.potentials import Quadratic
        >>> units = Whitening.of_moments(torch.tensor([1.0]), torch.tensor([[4.0]])).coordinates
        >>> T = FlowMap(Blocks([Quadratic(1)]), units)  # of N(1, 4) to N(0, 1)
        >>> x = torch.tensor([5.0])
        >>> T(x).item(), T.inv(T(x)).item()
        (2.0, 5.0)
        >>> round(T.log_abs_det_jacobian(x, T(x)).item(), 5)  # −log 2
        -0.69315
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, blocks: Blocks, coordinates: Standardizer, cache_size: int = 0) -> None:
        super().__init__(cache_size=cache_size)
        self.blocks, self.coordinates = blocks.double(), coordinates
        self.features = len(coordinates.shift_x)
        self._log_volume = float(torch.linalg.slogdet(coordinates.matrix).logabsdet)

    def with_cache(self, cache_size: int = 1) -> FlowMap:
        return self if self._cache_size == cache_size else FlowMap(self.blocks, self.coordinates, cache_size)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FlowMap) and other.blocks is self.blocks and other.coordinates is self.coordinates

    def __hash__(self) -> int:
        return hash(self.blocks)

    def _rows(self, x: Tensor) -> Tensor:
        if x.shape[-1:] != (self.features,):
            raise ValueError(f"expected points of shape (..., {self.features}), got {tuple(x.shape)}")
        return x.reshape(-1, self.features)

    def _call(self, x: Tensor) -> Tensor:
        return self.blocks.transport(self.coordinates.source(self._rows(x))).to(x.dtype).reshape(x.shape)

    def _inverse(self, z: Tensor) -> Tensor:
        rows = self.blocks.invert(self._rows(z).double())
        return self.coordinates.source_inverse(rows, dtype=z.dtype).reshape(z.shape)

    def log_abs_det_jacobian(self, x: Tensor, z: Tensor) -> Tensor:
        """Log |det| of the Jacobian at ``x``, of its batch shape; ``z`` is not used."""
        return self.image_and_log_det(x)[1]

    def image_and_log_det(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images ``(..., features)`` and log |det| of the Jacobian ``(...)`` in one sweep."""
        latent, log_det = self.blocks(self.coordinates.source(self._rows(x)))
        log_det = log_det + self._log_volume
        return latent.to(x.dtype).reshape(x.shape), log_det.to(x.dtype).reshape(x.shape[:-1])


def in_data_units(
    callback: Callable[[dict[str, float], FlowMap], bool | None], coordinates: Standardizer
) -> Callable[[dict[str, float], nn.Module], bool | None]:
    """A callback of the training loop, of blocks, that hands an estimator's callback a map it may keep."""

    def call(record: dict[str, float], module: nn.Module) -> bool | None:
        blocks = copy.deepcopy(module)
        assert isinstance(blocks, Blocks)  # for the type checker: what the loop was given to train
        return callback(record, FlowMap(blocks.cpu(), coordinates))

    return call
