"""The trained blocks or the Gaussian they started at: the choice that points which neither has seen make."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ot_lift.estimators_density import preferred
from ot_lift.flows_map import Blocks, FlowMap
from ot_lift.flows_start import identity_blocks
from ot_lift.flows_whitening import Whitening
from ot_lift.likelihood import block_rows, log_density
from ot_lift.maps import in_blocks


@dataclass(frozen=True)
class Choice:
    """What was chosen and how well it does on the points.

    Attributes:
        map_: from data to the latent.
        used_network: whether it is the trained blocks.
        log_likelihood: mean log-density of the points, nats, in the units of the data.
        standard_error: of that mean.
    """

    map_: FlowMap
    used_network: bool
    log_likelihood: float
    standard_error: float


@torch.no_grad()
def choose(trained: Blocks, whitening: Whitening, points: Tensor) -> Choice:
    """Take the trained blocks if their gain in log-density is significant, else the identity.

    Args:
        trained: blocks in whitened coordinates.
        whitening: these coordinates.
        points: whitened, ``(n, features)`` with n ≥ 2, used neither to train nor to stop.

    Example:
        >>> from ot_lift.potentials import Quadratic
        >>> whitening = Whitening.of_moments(torch.zeros(1), torch.ones(1, 1))
        >>> narrow = Quadratic(1)  # of N(0, 4): worse for points of N(0, 1)
        >>> narrow.set_quadratic_(torch.tensor([[0.5]]))
        >>> points = torch.randn(100, 1, generator=torch.Generator().manual_seed(0)).double()
        >>> choose(Blocks([narrow]), whitening, points).used_network
        False
    """
    start = FlowMap(identity_blocks(points.shape[1]), whitening.coordinates)
    flow = FlowMap(trained, whitening.coordinates)
    before, after = _log_density(start.blocks, points), _log_density(flow.blocks, points)
    used, mean, error = preferred(before, after)
    return Choice(flow if used else start, used, mean + whitening.log_volume, error)


def _log_density(blocks: Blocks, x: Tensor) -> Tensor:
    return in_blocks(lambda rows: log_density(*blocks(rows)), x, block_rows(x.shape[1]))
