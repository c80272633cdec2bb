"""A posterior map as a folder: the potential, its coordinates, and the record of its fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ot_lift.io import joined, load_folder, part, save_folder
from ot_lift.posterior_latent import LatentMap
from ot_lift.posterior_mode import Laplace
from ot_lift.posterior_potential import CubicICNN
from ot_lift.potentials import ICNN, Potential, Quadratic

_KIND = "posterior-map"


def write_map(path: Path, latent: LatentMap, record: dict[str, Any]) -> None:
    """Write a map, and JSON values about it, to a folder.

    Raises:
        DataError: if something else is in the way, or the place cannot be written.
    """
    inner, units = latent.potential, vars(latent.units)
    laplace = {name: value for name, value in units.items() if isinstance(value, Tensor)}
    tensors = joined({"network": inner.state_dict(), "laplace": laplace})
    config = {
        "network": inner.config() if isinstance(inner, ICNN) else None,
        "strong_convexity": inner.strong_convexity,
        "laplace": {name: value for name, value in units.items() if not isinstance(value, Tensor)},
        "direction": latent.direction,
        "record": record,
    }
    save_folder(path, kind=_KIND, config=config, tensors=tensors)


def read_map(path: Path) -> tuple[LatentMap, dict[str, Any]]:
    """What :func:`write_map` wrote.

    Raises:
        DataError: if the folder is damaged, of another kind, or newer than this version of the library.
    """
    config, tensors = load_folder(path, kind=_KIND)
    held: dict[str, Any] = {**part(tensors, "laplace"), **config["laplace"]}
    held.setdefault("centre", held["mode"])  # older maps are centred there
    units = Laplace(**held)
    inner: Potential = (
        Quadratic(len(units.mode), strong_convexity=config["strong_convexity"])
        if config["network"] is None
        else (CubicICNN if "cubic" in config["network"] else ICNN)(**config["network"])
    )
    inner = inner.double()
    inner.load_state_dict(part(tensors, "network"))
    return LatentMap(inner, units, config["direction"]), config["record"]
