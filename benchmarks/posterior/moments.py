"""Moments of the catalogue's posteriors by long chains of NUTS: what draws are held against.

`python -m benchmarks.posterior.moments --cache FOLDER` writes `moments.json` beside this file from reference draws,
which are made where the folder lacks them.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import posteriors
from benchmarks.tasks import Array
from ot_lift.errors import DataError
from ot_lift.io import atomic_file
from posteriors.reference import Reference
from posteriors.target import Posterior

FILE = Path(__file__).with_name("moments.json")

_DIGITS = 7
_MCSE = 3.0


def entries(sites: Mapping[str, Array], axes: int) -> Array:
    """All entries of named sites as columns; the first `axes` axes of every site number the draws.

    Example:
        >>> entries({"b": np.ones((5, 2, 3)), "a": np.zeros(5)}, 1).shape
        (5, 7)
    """
    columns = [np.asarray(value).reshape(*value.shape[:axes], -1) for _, value in sorted(sites.items())]
    return np.concatenate(columns, axes)


def bulk_ess(draws: Array) -> Array:
    """Bulk effective sample size by ArviZ of every entry of draws `(chains, draws, entries)`."""
    return _ess(draws, "bulk")


def _ess(draws: Array, method: str) -> Array:
    arviz: Any = importlib.import_module("arviz")
    columns = {str(k): draws[:, :, k] for k in range(draws.shape[2])}
    modern = int(arviz.__version__.split(".")[0]) >= 1
    data = arviz.from_dict({"posterior": columns}) if modern else arviz.from_dict(posterior=columns)
    found = arviz.ess(data, method=method)
    return np.array([float(found[name]) for name in columns])


@dataclass(frozen=True)
class Moments:
    """Of every entry of a posterior's sites, in the order of `entries`; arrays `(entries,)`.

    Attributes:
        mean: of the entry.
        deviation: its standard deviation.
        kurtosis: its fourth standardised moment, 3 of a normal law.
        ess: how many independent draws the mean stems from.
        ess_deviation: how many the deviation does; chains that turn about a mean know it better than the deviation.
    """

    mean: Array
    deviation: Array
    kurtosis: Array
    ess: Array
    ess_deviation: Array

    @classmethod
    def of(cls, reference: Reference) -> Moments:
        """Of reference draws."""
        draws = entries(reference.draws, 2)
        flat = draws.reshape(-1, draws.shape[2])
        kurtosis = ((flat - flat.mean(0)) ** 4).mean(0) / flat.var(0) ** 2
        return cls(flat.mean(0), flat.std(0), kurtosis, bulk_ess(draws), _ess(draws, "sd"))

    def errors(self, draws: Array, effective: float) -> dict[str, float]:
        """Largest errors of means (in standard deviations) and of standard deviations (relative).

        Raw, beyond three Monte Carlo standard errors of both samples, and in units of those.

        Args:
            draws: `(n, entries)`.
            effective: how many independent draws they are worth.
        """
        mean = np.abs(draws.mean(0) - self.mean) / self.deviation
        spread = np.abs(draws.std(0) / self.deviation - 1)
        mean_error, spread_error = self.standard_errors(effective)
        return {
            "mean": float(mean.max()),
            "mean beyond": float((mean - _MCSE * mean_error).max()),
            "mean in MCSE": float((mean / mean_error).max()),
            "sd": float(spread.max()),
            "sd in MCSE": float((spread / spread_error).max()),
            "sd beyond": float((spread - _MCSE * spread_error).max()),
        }

    def standard_errors(self, effective: float) -> tuple[Array, Array]:
        """Monte Carlo standard errors of both errors, each `(entries,)`, between the reference and other draws.

        Example:
            >>> many = np.array([np.inf])
            >>> exact = Moments(np.zeros(1), np.ones(1), np.array([3.0]), many, many)
            >>> [error.tolist() for error in exact.standard_errors(200.0)]  # 1/√n and 1/√(2n)
            [[0.07071067811865475], [0.05]]
        """
        mean, deviation = (np.sqrt(1 / ess + 1 / effective) for ess in (self.ess, self.ess_deviation))
        return mean, deviation * np.sqrt((self.kurtosis - 1) / 4)  # of a standard deviation, by the delta method


def moments_of(posterior: Posterior, *, folder: Path | None) -> Moments | None:
    """The moments of a target: those that the project has, if they are of this very density, else of reference draws.

    Args:
        posterior: The target.
        folder: Of reference draws, which are made if it lacks them, in minutes to hours; None: none are.

    Returns:
        None where there are none.

    Raises:
        RuntimeError: The chains do not get long enough.

    Example:
        >>> moments = moments_of(posteriors.load("linear_diabetes"), folder=None)
        >>> moments.mean.shape, bool((moments.deviation > 0).all())
        ((11,), True)
    """
    known = _known().get(posterior.name)
    if known is not None and _is_of(known, posterior):
        return Moments(**{name: np.array(known[name]) for name in Moments.__dataclass_fields__})
    return None if folder is None else Moments.of(posteriors.reference(posterior.name, folder=folder))


def _known() -> dict[str, Any]:
    known: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    return known


def _probes(posterior: Posterior) -> list[float]:
    """The log density at a few fixed points: another density has other values."""
    points = torch.linspace(-1.0, 1.0, 3 * posterior.dim, dtype=torch.float64).reshape(3, -1)
    values: list[float] = posterior.log_density(points).tolist()
    return values


def _is_of(known: Mapping[str, Any], posterior: Posterior) -> bool:
    return bool(np.allclose(known["log_density"], _probes(posterior), rtol=1e-9))


def write_moments(names: Sequence[str], *, folder: Path, path: Path = FILE) -> None:
    """Write the moments of targets, and keep those of others that the file has.

    Raises:
        DataError: A name is not in the catalogue.
    """
    if unknown := [name for name in names if name not in posteriors.names()]:
        raise DataError(f"expected names of {', '.join(posteriors.names())}, got {', '.join(unknown)}")
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in names:
        reference = posteriors.reference(name, folder=folder)
        moments = asdict(Moments.of(reference))
        known[name] = {
            "log_density": _probes(posteriors.load(name)),
            "r_hat": reference.r_hat,
            **{key: [float(f"{value:.{_DIGITS}g}") for value in values] for key, values in moments.items()},
        }
    lines = [f"{json.dumps(name)}: {json.dumps(known[name])}" for name in sorted(known)]
    with atomic_file(path) as file:
        file.write(("{\n" + ",\n".join(lines) + "\n}\n").encode())


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description="Write the moments of the catalogue's posteriors.")
    parser.add_argument("--cache", type=Path, required=True, help="folder of reference draws, made where missing")
    parser.add_argument("--names", nargs="*", default=list(posteriors.names()), help="default: the whole catalogue")
    options = parser.parse_args(arguments)
    write_moments(options.names, folder=options.cache)


if __name__ == "__main__":
    main()
