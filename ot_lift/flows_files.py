"""A fitted flow as a folder: weights and coordinates as tensors, settings and records as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ot_lift.estimators import plain_settings
from ot_lift.flows_map import Blocks, FlowMap
from ot_lift.flows_start import identity_blocks
from ot_lift.io import joined, load_folder, part, save_folder
from ot_lift.potentials import ICNN
from ot_lift.sides import Reach
from ot_lift.standardizer import Standardizer

_KIND = "convex-potential-flow"


@dataclass(frozen=True)
class FlowFiles:
    """What a folder holds of a flow.

    Attributes:
        settings: the estimator's parameters that JSON can hold.
        records: its fitted attributes that are plain values.
        map_: from data to the latent.
        reach: of the data that it was fitted on.
    """

    settings: Mapping[str, Any]
    records: Mapping[str, Any]
    map_: FlowMap
    reach: Reach

    def write(self, path: Path) -> None:
        """Write the folder, all of it or nothing.

        Raises:
            DataError: if something else is in the way, or the place cannot be written.
        """
        described, tensors = describe_map(self.map_)
        tensors |= {"reach.centre": self.reach.centre, "reach.whitening": self.reach.whitening}
        config = {
            "parameters": plain_settings(self.settings),
            **described,
            "reach": self.reach.radius,
            "fitted": dict(self.records),
        }
        save_folder(path, kind=_KIND, config=config, tensors=tensors)

    @classmethod
    def read(cls, path: Path) -> FlowFiles:
        """Read the folder.

        Raises:
            DataError: if it is damaged, of another kind, or newer than this version of the library.
        """
        config, tensors = load_folder(path, kind=_KIND)
        return cls(
            config["parameters"],
            config["fitted"],
            rebuild_map(config, tensors),
            Reach(**part(tensors, "reach"), radius=config["reach"]),
        )


def describe_map(map_: FlowMap) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What JSON holds of a map, and its tensors by name: what :func:`rebuild_map` takes."""
    tensors = joined({"blocks": map_.blocks.state_dict(), "coordinates": vars(map_.coordinates)})
    config = {
        "networks": [block.config() for block in map_.blocks if isinstance(block, ICNN)],
        "direction": map_.blocks.direction,
        "features": map_.features,
    }
    return config, tensors


def rebuild_map(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> FlowMap:
    """The map that :func:`describe_map` described.

    Example:
        >>> import torch
        >>> from ot_lift.flows_whitening import Whitening
        >>> units = Whitening.of_moments(torch.ones(1), torch.ones(1, 1)).coordinates
        >>> again = rebuild_map(*describe_map(FlowMap(identity_blocks(1), units)))
        >>> again(torch.tensor([3.0])).item()
        2.0
    """
    networks = [ICNN(**network) for network in config["networks"]]
    blocks = Blocks(networks, direction=config["direction"]) if networks else identity_blocks(config["features"])
    blocks.double().load_state_dict(part(tensors, "blocks"))
    return FlowMap(blocks, Standardizer(**part(tensors, "coordinates")))
