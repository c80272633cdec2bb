"""A fitted Brenier map as a folder: weights and coordinates as tensors, settings and records as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ot_lift.certificate import Certificate
from ot_lift.errors import DataError
from ot_lift.estimators import plain_settings
from ot_lift.io import joined, load_folder, part, save_folder
from ot_lift.maps import StandardisedPotential
from ot_lift.positivity import copy_with_marks
from ot_lift.potentials import ICNN, Potential, Quadratic
from ot_lift.sides import Reach
from ot_lift.standardizer import Standardizer

_KIND = "brenier-map"


@dataclass(frozen=True)
class MapFiles:
    """What a folder holds of a Brenier map.

    Attributes:
        settings: the estimator's parameters that JSON can hold.
        records: its fitted attributes that are plain values.
        potential: in units of the data.
        reaches: of the source and target data that it was fitted on, by side.
        certificate: of its held-out points.
    """

    settings: Mapping[str, Any]
    records: Mapping[str, Any]
    potential: StandardisedPotential
    reaches: Mapping[str, Reach]
    certificate: Certificate

    def write(self, path: Path) -> None:
        """Write the folder, all of it or nothing.

        Raises:
            DataError: if something else is in the way, or the place cannot be written.
        """
        inner = self.potential.inner
        tensors = joined({"network": inner.state_dict(), "coordinates": vars(self.potential.coordinates)})
        for side, reach in self.reaches.items():
            tensors |= joined({side: {"centre": reach.centre, "whitening": reach.whitening}})
        kind = "icnn" if isinstance(inner, ICNN) else "quadratic" if isinstance(inner, Quadratic) else "custom"
        config = {
            "parameters": plain_settings(self.settings),
            "network": {"kind": kind, **(inner.config() if isinstance(inner, ICNN) else {})},
            "features": inner.features,
            "reach": {side: reach.radius for side, reach in self.reaches.items()},
            "fitted": dict(self.records),
            "certificate": self.certificate.to_dict(),
        }
        save_folder(path, kind=_KIND, config=config, tensors=tensors)

    @classmethod
    def read(cls, path: Path, network: Potential | None = None) -> MapFiles:
        """Read the folder.

        Args:
            path: the folder.
            network: of the structure that the map was fitted with, where it was a custom one.

        Raises:
            DataError: if it is damaged, of another kind, or newer than this version of the library; if ``network`` is
                missing or of another structure.
        """
        config, tensors = load_folder(path, kind=_KIND)
        inner = _build(path, config, network).double()
        try:
            inner.load_state_dict(part(tensors, "network"))
        except RuntimeError as error:
            raise DataError(
                f"expected a network of the structure that the map in {path} was fitted with, got another "
                f"{type(inner).__name__}: build it with the same arguments"
            ) from error
        return cls(
            config["parameters"],
            config["fitted"],
            StandardisedPotential(inner, Standardizer(**part(tensors, "coordinates"))),
            {side: Reach(**part(tensors, side), radius=radius) for side, radius in config["reach"].items()},
            Certificate.from_dict(config["certificate"]),
        )


def _build(path: Path, config: Mapping[str, Any], network: Potential | None) -> Potential:
    """A network of the saved structure, its weights not yet loaded."""
    settings = dict(config["network"])
    kind = settings.pop("kind")
    if kind == "icnn":
        return ICNN(**settings)
    if kind == "quadratic":
        return Quadratic(config["features"], strong_convexity=config["parameters"]["strong_convexity"])
    if network is None:
        raise DataError(f"the map in {path} was fitted with network=…; pass the same structure to load")
    return cast(Potential, copy_with_marks(network))
