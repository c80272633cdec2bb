"""A fitted log-concave density as a folder: weights and coordinates as tensors, settings and records as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ot_lift.densities_choice import gaussian_energy, make_proposal
from ot_lift.densities_normalizer import Normalizer
from ot_lift.densities_proposal import FlowProposal, Proposal, StandardNormal
from ot_lift.estimators import plain_settings
from ot_lift.flows_files import describe_map, rebuild_map
from ot_lift.io import joined, load_folder, part, save_folder
from ot_lift.maps import StandardisedPotential
from ot_lift.potentials import ICNN, Potential
from ot_lift.standardizer import Standardizer

_KIND = "log-concave-density"


@dataclass(frozen=True)
class DensityFiles:
    """What a folder holds of a density.

    Attributes:
        settings: the estimator's parameters that JSON can hold.
        records: its fitted attributes that are plain values.
        normalizer: in the units of the data.
        energy: E in the units of the data.
        proposal: what samples are first drawn from.
    """

    settings: Mapping[str, Any]
    records: Mapping[str, Any]
    normalizer: Normalizer
    energy: StandardisedPotential
    proposal: Proposal

    def write(self, path: Path) -> None:
        """Write the folder, all of it or nothing.

        Raises:
            DataError: if something else is in the way, or the place cannot be written.
        """
        inner = self.energy.inner
        tensors = joined({"energy": inner.state_dict(), "units": vars(self.energy.coordinates)})
        flow: dict[str, Any] = {}
        if isinstance(self.proposal, FlowProposal):
            flow, flow_tensors = describe_map(self.proposal.map_)
            tensors |= joined({"flow": flow_tensors})
        config = {
            "parameters": plain_settings(self.settings),
            "network": inner.config() if isinstance(inner, ICNN) else {},
            "features": inner.features,
            "flow": flow,
            "normalizer": asdict(self.normalizer),
            "fitted": dict(self.records),
        }
        save_folder(path, kind=_KIND, config=config, tensors=tensors)

    @classmethod
    def read(cls, path: Path) -> DensityFiles:
        """Read the folder.

        Raises:
            DataError: if it is damaged, of another kind, or newer than this version of the library.
        """
        config, tensors = load_folder(path, kind=_KIND)
        inner: Potential = gaussian_energy(config["features"])
        proposal: Proposal = StandardNormal(config["features"])
        if config["network"]:
            inner = ICNN(**config["network"]).double()
        inner.load_state_dict(part(tensors, "energy"))
        if config["network"]:
            flow = config["flow"]
            proposal = make_proposal(inner, rebuild_map(flow, part(tensors, "flow")) if flow else None)
        return cls(
            config["parameters"],
            config["fitted"],
            Normalizer(**config["normalizer"]),
            StandardisedPotential(inner, Standardizer(**part(tensors, "units"))),
            proposal,
        )
