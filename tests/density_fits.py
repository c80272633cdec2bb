"""Small, quick fits of log-concave densities that are known; shared by the tests of LogConcaveDensity."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest import mock

import numpy as np
from flow_fits import Array, Normal
from scipy import stats

from ot_lift.densities import LogConcaveDensity

# A few steps of a small network: what a test needs that is not about the quality of a long fit.
QUICK: dict[str, Any] = {"hidden_features": (8, 8), "max_steps": 12, "batch_size": 64, "random_state": 0}


def quick(**options: Any) -> LogConcaveDensity:
    """A density that fits in a fraction of a second."""
    return LogConcaveDensity(**{**QUICK, **options})


def gumbels(rows: int, features: int, rng: np.random.Generator) -> Array:
    """Independent Gumbel columns of scales 1, 10, 100…, turned by 45° in the first two."""
    return np.asarray(_turn(rng.gumbel(size=(rows, features)) * 10.0 ** np.arange(features)))


def gumbels_log_prob(x: Array) -> Array:
    """Log-density of `gumbels`."""
    scale = 10.0 ** np.arange(x.shape[1])
    return np.asarray(stats.gumbel_r.logpdf(_turn(x, back=True) / scale).sum(1) - np.log(scale).sum())


def _turn(x: Array, *, back: bool = False) -> Array:
    if x.shape[1] == 1:
        return x
    matrix = np.eye(x.shape[1])
    matrix[:2, :2] = np.array([[1.0, -1.0], [1.0, 1.0]]) / np.sqrt(2)
    return x @ (matrix.T if back else matrix)


def few_draws() -> mock._patch[int]:
    """Fewer draws of a proposal for training than a real fit takes."""
    return mock.patch("ot_lift.densities_objective._DRAWS", 128)


@dataclass(frozen=True)
class Fitted:
    """A fitted density with the data it was fitted on. Shared between tests: never refit or change it."""

    density: LogConcaveDensity
    X: Array


@cache
def gaussian_fit() -> Fitted:
    """Of a Gaussian in the plane: the start is kept."""
    rng = np.random.default_rng(1)
    X = Normal.random(2, rng, condition=1e4).draw(400, rng)
    return Fitted(quick().fit(X), X)


def gumbel_points(features: int) -> Array:
    """What :func:`gumbel_fit` is of, for fits of a test's own."""
    return gumbels(3000, features, np.random.default_rng(2))


@cache
def gumbel_fit(features: int) -> Fitted:
    """Of Gumbel columns: a network is needed, and used."""
    X = gumbel_points(features)
    density = quick(hidden_features=(16, 16), max_steps=300 if features > 2 else 150, batch_size=256).fit(X)
    assert density.used_network_
    return Fitted(density, X)


FITS = {
    "start kept": gaussian_fit,
    "one column": lambda: gumbel_fit(1),
    "two columns": lambda: gumbel_fit(2),
    "three columns": lambda: gumbel_fit(3),
}
