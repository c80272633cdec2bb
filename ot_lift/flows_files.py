"""A fitted flow as a folder: weights and coordinates as tensors, settings and records as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ot_lift.estimators import part, plain_settings
from ot_lift.flows_map import Blocks, FlowMap
from ot_lift.flows_start import identity_blocks
from ot_lift.io import load_folder, save_folder
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
        tensors = {f"blocks.{name}": value for name, value in self.map_.blocks.state_dict().items()}
        tensors |= {f"coordinates.{name}": value for name, value in vars(self.map_.coordinates).items()}
        tensors |= {"reach.centre": self.reach.centre, "reach.whitening": self.reach.whitening}
        config = {
            "parameters": plain_settings(self.settings),
            "networks": [block.config() for block in self.map_.blocks if isinstance(block, ICNN)],
            "direction": self.map_.blocks.direction,
            "features": self.map_.features,
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
        networks = [ICNN(**network) for network in config["networks"]]
        blocks = Blocks(networks, direction=config["direction"]) if networks else identity_blocks(config["features"])
        blocks.double().load_state_dict(part(tensors, "blocks."))
        return cls(
            config["parameters"],
            config["fitted"],
            FlowMap(blocks, Standardizer(**part(tensors, "coordinates."))),
            Reach(**part(tensors, "reach."), radius=config["reach"]),
        )
