"""Posteriors of a posteriordb checkout: its data and gold-standard draws, with the regressions that we have models of.

Magnusson, Torgander, Bürkner, Zhang, Carpenter & Vehtari 2025, posteriordb (arXiv 2407.04967).
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import HalfCauchy, Normal
from torch.nn.functional import softplus

from posteriors.reference import Reference
from posteriors.regression import with_ones
from posteriors.target import Array, Posterior

__all__ = ["Recorded", "load", "names"]


@dataclass(frozen=True)
class Recorded(Posterior):
    """A posterior of posteriordb.

    Attributes:
        reference: its gold-standard draws with their diagnostics, or None where posteriordb has none.
    """

    reference: Reference | None = None


@dataclass(frozen=True)
class _Regression:
    """Design matrix and response of a model; `build` makes a posterior of them."""

    design: Array
    response: Array
    build: Callable[[Array, Array, dict[str, Any]], Posterior]


def _kidscore(data: dict[str, Array]) -> _Regression:
    return _Regression(with_ones(data["mom_hs"][:, None]), data["kid_score"], _gaussian(half_cauchy=2.5))


def _mesquite(data: dict[str, Array]) -> _Regression:
    volume = np.log(data["diam1"] * data["diam2"] * data["canopy_height"])
    return _Regression(with_ones(volume[:, None]), np.log(data["weight"]), _gaussian())


def _nes(data: dict[str, Array]) -> _Regression:
    ages = [data["age_discrete"] == group for group in (2, 3, 4)]
    columns = [data["real_ideo"], data["race_adj"], *ages, data["educ1"], data["gender"], data["income"]]
    return _Regression(with_ones(np.column_stack(columns).astype(np.float64)), data["partyid7"], _gaussian())


def _wells(data: dict[str, Array]) -> _Regression:
    return _Regression(data["dist"][:, None] / 100.0, data["switched"], _logistic)


_MODELS: dict[str, Callable[[dict[str, Array]], _Regression]] = {
    "kidiq-kidscore_momhs": _kidscore,
    "mesquite-logmesquite_logvolume": _mesquite,
    "nes2000-nes": _nes,
    "wells_data-wells_dist100_model": _wells,
}


def names() -> tuple[str, ...]:
    """The posteriors of posteriordb that :func:`load` has models of.

    Example:
        >>> "nes2000-nes" in names()
        True
    """
    return tuple(_MODELS)


def load(folder: str | Path, name: str) -> Recorded:
    """A posterior of a posteriordb checkout, in the coordinates and with the draws of posteriordb.

    Args:
        folder: the checkout, or its folder ``posterior_database``.
        name: of the posterior, as in ``posterior_database/posteriors``.

    Returns:
        The target. Slopes keep the site names of the Stan model; ``sigma`` has log σ as its coordinate.

    Raises:
        ValueError: for a posterior that there is no model of here.
        FileNotFoundError: if the checkout lacks one of the files.
    """
    if name not in _MODELS:
        raise ValueError(f"expected one of {', '.join(_MODELS)}, got {name!r}")
    root = Path(folder)
    root = root / "posterior_database" if (root / "posterior_database").is_dir() else root
    entry = _read(root / "posteriors" / f"{name}.json")
    values = _read(root / "data" / "data" / f"{entry['data_name']}.json.zip")
    data = {key: np.asarray(value, dtype=np.float64) for key, value in values.items()}
    regression = _MODELS[name](data)
    posterior = regression.build(regression.design, regression.response, entry)
    return Recorded(**vars(posterior), reference=_reference(root, entry["reference_posterior_name"]))


def _read(path: Path) -> Any:
    """The JSON of a file, or of the one file in a zip archive."""
    if not path.exists():
        raise FileNotFoundError(f"expected {path.name} of a posteriordb checkout, got none at {path}")
    if path.suffix != ".zip":
        return json.loads(path.read_text(encoding="utf-8"))
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(archive.namelist()[0]))


def _reference(root: Path, name: str | None) -> Reference | None:
    """Draws by site, ``(chains, draws, *shape)``, from the columns ``beta[1]``, ``beta[2]``, … of every chain."""
    if name is None:
        return None
    folder = root / "reference_posteriors" / "draws"
    chains: list[dict[str, list[float]]] = _read(folder / "draws" / f"{name}.json.zip")
    columns: dict[str, list[str]] = {}
    for label in chains[0]:
        columns.setdefault(re.sub(r"\[\d+\]$", "", label), []).append(label)
    draws = {
        site: np.stack([np.asarray([chain[label] for chain in chains]) for label in labels], axis=-1)
        for site, labels in columns.items()
    }
    draws = {site: value if "[" in columns[site][0] else value[..., 0] for site, value in draws.items()}
    record = _read(folder / "info" / f"{name}.info.json")["diagnostics"]
    bulk_ess, divergences = min(record["effective_sample_size_bulk"]), sum(record["divergent_transitions"])
    return Reference(draws, max(record["r_hat"]), bulk_ess, int(divergences))


def _citation(entry: dict[str, Any]) -> str:
    return f"Gelman & Hill 2006, Data Analysis Using Regression; {entry['name']} of posteriordb (arXiv 2407.04967)"


def _gaussian(*, half_cauchy: float | None = None) -> Callable[[Array, Array, dict[str, Any]], Posterior]:
    """Gaussian regression with unknown noise: flat slopes; σ flat, or half-Cauchy of a given scale."""

    def model(X: Array, y: Array) -> None:
        import numpyro
        import numpyro.distributions as dist
        from numpyro.distributions import constraints

        beta = numpyro.sample("beta", dist.ImproperUniform(constraints.real, (), (X.shape[1],)))
        flat = dist.ImproperUniform(constraints.positive, (), ())
        sigma = numpyro.sample("sigma", flat if half_cauchy is None else dist.HalfCauchy(half_cauchy))
        numpyro.sample("y", dist.Normal(X @ beta, sigma), obs=y)

    def build(design: Array, response: Array, entry: dict[str, Any]) -> Posterior:
        rows, y = torch.from_numpy(design), torch.from_numpy(response)

        def log_density(x: Tensor) -> Tensor:
            log_sigma = x[..., -1]
            sigma = log_sigma.exp()
            value = Normal(x[..., :-1] @ rows.T, sigma[..., None]).log_prob(y).sum(-1) + log_sigma
            return value if half_cauchy is None else value + HalfCauchy(sigma.new_tensor(half_cauchy)).log_prob(sigma)

        return Posterior(
            name=entry["name"],
            names=(*(f"beta[{i}]" for i in range(design.shape[1])), "sigma"),
            model=model,
            arguments=(design, response),
            log_density=log_density,
            constrain=lambda x: {"beta": x[:, :-1], "sigma": (torch if isinstance(x, Tensor) else np).exp(x[:, -1])},
            citation=_citation(entry),
        )

    return build


def _logistic(design: Array, response: Array, entry: dict[str, Any]) -> Posterior:
    """Logistic regression with flat priors: log-concave, not strongly."""

    def model(X: Array, y: Array) -> None:
        import numpyro
        import numpyro.distributions as dist
        from numpyro.distributions import constraints

        alpha = numpyro.sample("alpha", dist.ImproperUniform(constraints.real, (), ()))
        beta = numpyro.sample("beta", dist.ImproperUniform(constraints.real, (), (X.shape[1],)))
        numpyro.sample("switched", dist.Bernoulli(logits=alpha + X @ beta), obs=y)

    rows, success = torch.from_numpy(with_ones(design)), torch.from_numpy(response)

    def log_density(x: Tensor) -> Tensor:
        logits = x @ rows.T
        return (success * logits - softplus(logits)).sum(-1)

    return Posterior(
        name=entry["name"],
        names=("alpha", *(f"beta[{i}]" for i in range(design.shape[1]))),
        model=model,
        arguments=(design, response),
        log_density=log_density,
        constrain=lambda x: {"alpha": x[:, 0], "beta": x[:, 1:]},
        citation=_citation(entry),
    )
