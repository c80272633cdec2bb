"""Blocks that a flow starts at: the identity in whitened coordinates, exactly or on average."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ot_lift.flows_map import Blocks
from ot_lift.potentials import ICNN, Quadratic
from ot_lift.starts import align_with_identity_


def identity_blocks(features: int) -> Blocks:
    """One block that is exactly the identity: the Gaussian fit.

    Example:
        >>> identity_blocks(2).transport(torch.ones(1, 2).double()).tolist()
        [[1.0, 1.0]]
    """
    return Blocks([Quadratic(features, strong_convexity=1.0)]).double()


def network_blocks(
    x: Tensor,
    count: int,
    *,
    direction: str,
    hidden_features: Sequence[int],
    generator: torch.Generator,
    **options: Any,
) -> Blocks:
    """Blocks of networks, each the identity on average over some points.

    Args:
        x: whitened points ``(n, features)``, in the dtype of the blocks.
        count: how many blocks.
        direction: see :class:`~ot_lift.flows_map.Blocks`.
        hidden_features: widths of each network.
        generator: source of the initial weights.
        **options: further arguments of :class:`~ot_lift.potentials.ICNN`.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = torch.randn(500, 2, generator=generator)
        >>> blocks = network_blocks(x, 1, direction="inverse", hidden_features=(8, 8), generator=generator)
        >>> bool((blocks.transport(x) - x).square().mean().sqrt() < 0.1)
        True
    """
    networks = [ICNN(x.shape[1], hidden_features, generator=generator, dtype=x.dtype, **options) for _ in range(count)]
    for network in networks:
        align_with_identity_(network, x)
    return Blocks(networks, direction=direction)
