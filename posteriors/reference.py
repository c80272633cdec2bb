"""Reference draws by NUTS: long enough, checked, and cached with their diagnostics."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posteriors.target import Array, Posterior

_CHAINS, _WARM_UP, _LEG, _LEGS = 4, 1000, 2500, 16


@dataclass(frozen=True)
class Reference:
    """Draws and how good they are.

    Attributes:
        draws: ``(chains, draws, *shape)`` of every site, float64.
        r_hat: the largest R̂ of any entry.
        bulk_ess: the smallest bulk ESS of any entry.
        divergences: divergent transitions.
    """

    draws: dict[str, Array]
    r_hat: float
    bulk_ess: float
    divergences: int

    def summary(self) -> dict[str, tuple[Array, Array]]:
        """Mean and standard deviation of every site, each of the site's shape.

        Example:
            >>> draws = np.array([[1.0, 2.0], [3.0, 2.0]])
            >>> mean, deviation = Reference({"a": draws}, 1.0, 4.0, 0).summary()["a"]
            >>> float(mean), round(float(deviation) ** 2, 6)
            (2.0, 0.666667)
        """
        return {name: (v.mean((0, 1)), v.reshape(-1, *v.shape[2:]).std(0, ddof=1)) for name, v in self.draws.items()}


def reference_draws(
    posterior: Posterior, *, min_ess: float = 20_000.0, max_r_hat: float = 1.01, seed: int = 0, folder: Any = None
) -> Reference:
    """Draws of four NUTS chains in float64, run until R̂ and bulk ESS (ArviZ) are good enough.

    Args:
        posterior: the target.
        min_ess: smallest bulk ESS to accept.
        max_r_hat: R̂ must be below.
        seed: of the chains.
        folder: where to keep them (default: ``$POSTERIORS_CACHE``, else ``~/.cache/posteriors``).

    Raises:
        RuntimeError: if 40,000 draws a chain are not enough.
    """
    place = Path(folder or os.environ.get("POSTERIORS_CACHE") or Path.home() / ".cache" / "posteriors")
    key = json.dumps([posterior.name, min_ess, max_r_hat, seed, _fingerprint(posterior)])
    path = place / f"{posterior.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    if not path.exists():
        _save(path, _run(posterior, min_ess=min_ess, max_r_hat=max_r_hat, seed=seed))
    return _load(path)


def _fingerprint(posterior: Posterior) -> str:
    """Changes with the data and the density: its values at a few fixed points."""
    import torch

    points = torch.linspace(-1.0, 1.0, 3 * posterior.dim, dtype=torch.float64).reshape(3, -1)
    return str(posterior.log_density(points).tolist())


def _run(posterior: Posterior, *, min_ess: float, max_r_hat: float, seed: int) -> Reference:
    import jax
    from numpyro.infer import MCMC, NUTS

    legs: list[dict[str, Any]] = []
    divergences = 0
    with jax.enable_x64(True):
        sampler = MCMC(
            NUTS(posterior.model),
            num_warmup=_WARM_UP,
            num_samples=_LEG,
            num_chains=_CHAINS,
            chain_method="vectorized",
            progress_bar=False,
        )
        key = jax.random.PRNGKey(seed)
        for _ in range(_LEGS):
            sampler.run(key, *posterior.arguments)
            legs.append({name: np.asarray(v) for name, v in sampler.get_samples(group_by_chain=True).items()})
            divergences += int(np.asarray(sampler.get_extra_fields()["diverging"]).sum())
            draws = {name: np.concatenate([leg[name] for leg in legs], axis=1) for name in legs[0]}
            r_hat, bulk_ess = convergence(draws)
            if r_hat < max_r_hat and bulk_ess > min_ess:
                return Reference(draws, r_hat, bulk_ess, divergences)
            sampler.post_warmup_state = sampler.last_state
            key = sampler.post_warmup_state.rng_key
    raise RuntimeError(
        f"expected R-hat < {max_r_hat} and bulk ESS > {min_ess} of {posterior.name}, got {r_hat:.3f} and "
        f"{bulk_ess:.0f} after {_LEG * _LEGS} draws a chain"
    )


def convergence(draws: dict[str, Array]) -> tuple[float, float]:
    """Largest R̂ and smallest bulk ESS of any entry of draws ``(chains, draws, *shape)``, by ArviZ of any generation.

    Example:
        >>> r_hat, bulk_ess = convergence({"a": np.random.default_rng(0).normal(size=(4, 500))})
        >>> r_hat < 1.01, bulk_ess > 1500
        (True, True)
    """
    arviz: Any = importlib.import_module("arviz")
    modern = int(arviz.__version__.split(".")[0]) >= 1
    data = arviz.from_dict({"posterior": draws}) if modern else arviz.from_dict(posterior=draws)
    r_hat, ess = arviz.rhat(data), arviz.ess(data, method="bulk")
    return max(float(r_hat[n].max()) for n in draws), min(float(ess[n].min()) for n in draws)


def _save(path: Path, reference: Reference) -> None:
    """A file that is complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{secrets.token_hex(8)}.npz")
    figures = np.array([reference.r_hat, reference.bulk_ess, reference.divergences], dtype=np.float64)
    arrays: dict[str, Any] = {f"draws.{name}": value for name, value in reference.draws.items()}
    try:
        np.savez(partial, **arrays, figures=figures)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _load(path: Path) -> Reference:
    with np.load(path, allow_pickle=False) as held:
        r_hat, bulk_ess, divergences = held["figures"].tolist()
        draws = {name.removeprefix("draws."): held[name] for name in held.files if name.startswith("draws.")}
    return Reference(draws, r_hat, bulk_ess, int(divergences))
