"""From parameters and a context to the latent and back: in standardised coordinates, and in those of the data."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ot_lift.amortized_start import Regression
from ot_lift.conjugate import conjugate
from ot_lift.likelihood import block_rows
from ot_lift.logdet import log_det_for_training, value_gradient_log_det
from ot_lift.partial_icnn import PartialICNN
from ot_lift.potentials import Potential, Quadratic

# Of points (n, d), contexts (m, k), and which context goes with each point (n,).
OfRows = Callable[[Tensor, Tensor, Tensor], Tensor]


class ConditionalFlow(nn.Module):
    """The gradient of a partially convex network, on rows that hold points and contexts side by side.

    Args:
        network: F; None for ½‖x‖² whatever the context.
        features: columns of a row that are the point.

    Example:
        >>> latent, log_det = ConditionalFlow(None, 1)(torch.tensor([[3.0, 7.0]]))
        >>> latent.tolist(), log_det.tolist()
        ([[3.0]], [0.0])
    """

    def __init__(self, network: PartialICNN | None, features: int) -> None:
        super().__init__()
        self.network, self.features = network, features

    def at(self, context: Tensor) -> Potential:
        """The potentials of contexts ``(n, context_features)``."""
        if self.network is not None:
            return self.network.at(context)
        return Quadratic(self.features, strong_convexity=1.0, dtype=context.dtype).to(context.device)

    def forward(self, rows: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Images ``(n, features)`` of the points and log |det| of the Jacobian ``(n,)``.

        Args:
            rows: points and contexts, ``(n, features + context_features)``.
            generator: source of probes for a log |det| to train on; None for the exact one.

        Raises:
            ConvergenceError: if a Hessian is not positive definite.
        """
        x, potential = rows[:, : self.features], self.at(rows[:, self.features :])
        if generator is None:
            return value_gradient_log_det(potential, x)[1:]
        return log_det_for_training(potential, x, generator=generator)[1:]


class ConditionalMap:
    """(θ, y) ↦ z, for every y a bijection from θ to the latent N(0, I), in float64 and the units of the data.

    Args:
        flow: in standardised coordinates; kept in float64.
        units: these coordinates.

    Example:
        >>> covariance = torch.tensor([[5.0, 4.0], [4.0, 4.0]])  # θ given y is N(y, 1)
        >>> units = Regression.of_joint_moments(torch.zeros(2), covariance, parameters=1)
        >>> conditional = ConditionalMap(ConditionalFlow(None, 1), units)
        >>> y = torch.tensor([[2.0]])
        >>> round(conditional.invert(torch.tensor([[3.0]]), y, torch.tensor([0])).item(), 6)
        5.0
    """

    def __init__(self, flow: ConditionalFlow, units: Regression) -> None:
        self.flow, self.units = flow.double(), units
        self.features = units.parameters
        self.context_features = len(units.coordinates.shift_x) - units.parameters

    def image_and_log_det(self, theta: Tensor, y: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Images z ``(n, features)`` and log |det ∂z/∂θ| ``(n,)`` at θ ``(n, features)``.

        Args:
            theta: ``(n, features)``.
            y: ``(m, context_features)``.
            rows: which y goes with each θ, ``(n,)``.
        """
        pairs = self.units.coordinates.source(torch.cat([theta.double(), y.double()[rows]], 1))
        _, latent, log_det = value_gradient_log_det(self._potential(y, rows), pairs[:, : self.features])
        return latent, log_det + self.units.log_volume

    def invert(self, z: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        """The θ ``(n, features)`` whose images are ``z`` ``(n, features)``; ``y`` and ``rows`` as above.

        Raises:
            ConvergenceError: if a point cannot be solved for to tolerance.
        """
        x = conjugate(self._potential(y, rows), z.double()).argmax
        pairs = torch.cat([x, self._context(y)[rows]], 1)
        return self.units.coordinates.source_inverse(pairs)[:, : self.features]

    def _context(self, y: Tensor) -> Tensor:
        """Whitened contexts of observations ``(m, context_features)``."""
        beside = torch.zeros(len(y), self.features, dtype=torch.float64)
        return self.units.coordinates.source(torch.cat([beside, y.double()], 1))[:, self.features :]

    def _potential(self, y: Tensor, rows: Tensor) -> Potential:
        return self.flow.at(self._context(y)).at_rows(rows)


def by_context(function: OfRows, points: Tensor, contexts: Tensor, rows: Tensor) -> Tensor:
    """A function of points and their contexts, applied without autograd to blocks of points, put together again.

    Args:
        function: of some points, of the contexts that they use, and of which one goes with each.
        points: ``(n, features)``.
        contexts: ``(m, context_features)``.
        rows: which context goes with each point, ``(n,)``.

    Example:
        >>> numbers = torch.arange(3.0)[:, None]
        >>> by_context(lambda x, y, rows: x * y[rows], numbers, torch.tensor([[10.0]]), torch.zeros(3).long()).tolist()
        [[0.0], [10.0], [20.0]]
    """
    size = block_rows(points.shape[1])
    parts = []
    with torch.no_grad():
        for block, index in zip(points.split(size), rows.split(size), strict=True):
            used, place = torch.unique(index, return_inverse=True)
            parts.append(function(block, contexts[used], place))
    return torch.cat(parts)


def in_data_units(
    callback: Callable[[dict[str, float], ConditionalMap], bool | None], units: Regression
) -> Callable[[dict[str, float], nn.Module], bool | None]:
    """A callback of the training loop, of a flow, that hands an estimator's callback a map it may keep."""

    def call(record: dict[str, float], module: nn.Module) -> bool | None:
        flow = copy.deepcopy(module)
        assert isinstance(flow, ConditionalFlow)  # for the type checker: what the loop was given to train
        return callback(record, ConditionalMap(flow.cpu(), units))

    return call
