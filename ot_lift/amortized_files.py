"""A fitted amortised posterior as a folder: weights and coordinates as tensors, settings and records as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ot_lift.amortized_map import ConditionalFlow, ConditionalMap
from ot_lift.amortized_start import Regression
from ot_lift.estimators import plain_settings
from ot_lift.io import joined, load_folder, part, save_folder
from ot_lift.partial_icnn import PartialICNN
from ot_lift.sides import Reach
from ot_lift.standardizer import Standardizer

_KIND = "amortized-posterior"


@dataclass(frozen=True)
class AmortizedFiles:
    """What a folder holds of an amortised posterior.

    Attributes:
        settings: the estimator's parameters that JSON can hold.
        records: its fitted attributes that are plain values.
        map_: from parameters and context to the latent.
        reach: of the contexts that it was fitted on.
    """

    settings: Mapping[str, Any]
    records: Mapping[str, Any]
    map_: ConditionalMap
    reach: Reach

    def write(self, path: Path) -> None:
        """Write the folder, all of it or nothing.

        Raises:
            DataError: if something else is in the way, or the place cannot be written.
        """
        network = self.map_.flow.network
        tensors = joined(
            {
                "flow": self.map_.flow.state_dict(),
                "coordinates": vars(self.map_.units.coordinates),
                "reach": {"centre": self.reach.centre, "whitening": self.reach.whitening},
            }
        )
        config = {
            "parameters": plain_settings(self.settings),
            "network": None if network is None else network.config(),
            "features": self.map_.features,
            "reach": self.reach.radius,
            "fitted": dict(self.records),
        }
        save_folder(path, kind=_KIND, config=config, tensors=tensors)

    @classmethod
    def read(cls, path: Path) -> AmortizedFiles:
        """Read the folder.

        Raises:
            DataError: if it is damaged, of another kind, or newer than this version of the library.
        """
        config, tensors = load_folder(path, kind=_KIND)
        network = None if config["network"] is None else PartialICNN(**config["network"])
        flow = ConditionalFlow(network, config["features"]).double()
        flow.load_state_dict(part(tensors, "flow"))
        coordinates = Standardizer(**part(tensors, "coordinates"))
        # Blur and share are of the fit, which is over.
        units = Regression(coordinates, blur=None, share=0.0, parameters=config["features"])
        reach = Reach(**part(tensors, "reach"), radius=config["reach"])
        return cls(config["parameters"], config["fitted"], ConditionalMap(flow, units), reach)
