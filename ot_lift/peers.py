"""POT's solvers as methods of a comparison, each with its own out-of-sample map.

They get the data with each side centred and both divided by one length. None of their maps changes by that (in
exact arithmetic), and their absolute tolerances then mean the same at every scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ot_lift.discrete import import_pot
from ot_lift.distances import float64_pair
from ot_lift.errors import DataError
from ot_lift.methods import BaseMethod, W2Value

__all__ = ["EMDMethod", "LinearMethod", "MappingMethod", "SinkhornMethod"]

Array = npt.NDArray[Any]

_BATCH_BYTES = 1 << 27  # distances held at a time while a discrete plan is applied to new points


@dataclass(frozen=True)
class _Units:
    """Each side centred, both divided by one length."""

    source: Array
    target: Array
    length: float

    @classmethod
    def of(cls, x: Array, y: Array) -> _Units:
        centres = x.mean(0), y.mean(0)
        spreads = (np.sqrt(np.square(points - c).sum(1).mean()) for points, c in zip((x, y), centres, strict=True))
        return cls(*centres, float(max(spreads)) or 1.0)


class _PotMethod(BaseMethod):
    """A POT estimator with `fit(Xs=, Xt=)` and `transform`, on at most `max_points` random points a side."""

    invertible: bool = True

    def __init__(self, *, max_points: int | None, **settings: Any) -> None:
        if max_points is not None and max_points < 2:
            raise DataError(f"expected max_points ≥ 2 or None, got {max_points}")
        super().__init__(max_points=max_points, **settings)
        self._max_points = max_points

    def _estimator(self, x: Array, y: Array) -> Any:
        """The POT estimator for these points (in the method's units)."""
        raise NotImplementedError

    def fit(self, X: Array, Y: Array, *, random_state: int = 0, max_seconds: float | None = None) -> Self:
        """Fit on a random subset within the cap. POT has no budget in seconds: `max_seconds` is not used."""
        self.notes = []
        tensors = float64_pair(X, Y)
        rng = np.random.default_rng(random_state)
        x, y = (
            self._capped(points.numpy(), rng, side) for points, side in zip(tensors, ("source", "target"), strict=True)
        )
        self._units = _Units.of(x, y)
        x, y = (x - self._units.source) / self._units.length, (y - self._units.target) / self._units.length
        self._estimator_ = self._estimator(x, y).fit(Xs=x, Xt=y)
        return self

    def _capped(self, points: Array, rng: np.random.Generator, side: str) -> Array:
        cap = self._max_points
        if cap is None or len(points) <= cap:
            return points
        self.notes.append(f"fitted on {cap:,} of {len(points):,} {side} points (its cap)")
        return points[rng.choice(len(points), cap, replace=False)]

    def transport(self, X: Array) -> Array:
        """POT's own out-of-sample map."""
        units = self._units
        return self._apply(X, units.source, units.target, self._transform)

    def invert(self, Y: Array) -> Array | None:
        """POT's own out-of-sample inverse, where it has one."""
        if not self.invertible:
            return None
        units = self._units
        return self._apply(Y, units.target, units.source, self._inverse_transform)

    def _apply(self, points: Array, home: Array, away: Array, function: Callable[[Array], Array]) -> Array:
        length = self._units.length
        return function((np.asarray(points, dtype=np.float64) - home) / length) * length + away

    def _transform(self, x: Array) -> Array:
        return np.asarray(self._estimator_.transform(Xs=x, batch_size=self._batch_size()))

    def _inverse_transform(self, y: Array) -> Array:
        return np.asarray(self._estimator_.inverse_transform(Xt=y, batch_size=self._batch_size()))

    def _batch_size(self) -> int:
        """Rows at a time: POT's 128 makes it form its barycentric projection anew for every 128 points."""
        coupling = getattr(self._estimator_, "coupling_", None)
        widest = 1 if coupling is None else max(coupling.shape)
        return max(128, _BATCH_BYTES // (8 * widest))

    def w2_squared(self) -> W2Value | None:
        """Cost of the fitted plan in data units, between the points it was fitted on."""
        plan, estimator, units = self._estimator_.coupling_, self._estimator_, self._units
        offset = (units.source - units.target) / units.length  # the plan's points are centred: put them back
        costs = import_pot().dist(estimator.xs_ + offset, estimator.xt_)
        value = float((plan * costs).sum() / plan.sum()) * units.length**2
        n, m = plan.shape
        return W2Value(value, f"cost of its plan between the {n:,} and {m:,} points it was fitted on")


class LinearMethod(_PotMethod):
    """The optimal map between Gaussians with the moments of the data (`ot.da.LinearTransport`).

    Args:
        regularisation: Added to the diagonal of both covariances, relative to the larger side's variance.

    References:
        Knott, Smith (1984), J. Optim. Theory Appl. 43; Gelbrich (1990), Math. Nachr. 147 (the value is a lower
        bound of W2² between laws with these moments).

    Example:
        >>> method = LinearMethod().fit(np.array([[0.0], [2.0]]), np.array([[10.0], [14.0]]))
        >>> method.transport(np.array([[3.0]])).round(6)  # x ↦ 12 + 2(x − 1)
        array([[16.]])
    """

    name = "linear"

    def __init__(self, *, regularisation: float = 1e-8) -> None:
        super().__init__(max_points=None, regularisation=regularisation)

    def _estimator(self, x: Array, y: Array) -> Any:
        self._moments = [(points.mean(0), np.atleast_2d(np.cov(points.T, bias=True))) for points in (x, y)]
        return import_pot().da.LinearTransport(reg=self.settings["regularisation"])

    def w2_squared(self) -> W2Value | None:
        """The Bures–Gelbrich value of the fitted moments."""
        (_, first), (_, second) = self._moments
        units = self._units
        distance = float(import_pot().gaussian.bures_distance(first, second)) * units.length
        value = distance**2 + float(np.square(units.source - units.target).sum())
        return W2Value(value, "Gaussians with the fitted moments; a lower bound of W2² for those moments")


class EMDMethod(_PotMethod):
    """Exact discrete plan, and the displacement of the nearest fitted point for a new one (`ot.da.EMDTransport`).

    Args:
        max_points: Cap on the points a side; time grows between quadratically and cubically.

    References:
        Ferradans, Papadakis, Peyré, Aujol (2014), arXiv 1307.5551 (the out-of-sample map).
    """

    name = "EMD"

    def __init__(self, *, max_points: int = 4000) -> None:
        super().__init__(max_points=max_points)

    def _estimator(self, x: Array, y: Array) -> Any:
        return import_pot().da.EMDTransport(max_iter=10_000_000)  # POT's 100,000 stops early


class SinkhornMethod(_PotMethod):
    """Entropic plan, and its barycentric map for a new point (`ot.da.SinkhornTransport`, "continuous").

    Args:
        regularisation: Entropic regularisation as a share of the mean cost between the centred sides. 0.02 was
            the best of 0.002 to 0.05 on Gaussian mixtures in 8 dimensions and near the best in 2.
        max_points: Cap on the points a side.
        max_iterations: Cap on Sinkhorn's iterations.
        tolerance: On the marginals.

    References:
        Cuturi (2013), arXiv 1306.0895; Pooladian, Niles-Weed (2021), arXiv 2109.12004 (the map).
    """

    name = "Sinkhorn"

    def __init__(
        self,
        *,
        regularisation: float = 0.02,
        max_points: int = 2000,
        max_iterations: int = 300,
        tolerance: float = 1e-6,
    ) -> None:
        super().__init__(
            max_points=max_points,
            regularisation=regularisation,
            max_iterations=max_iterations,
            tolerance=tolerance,
        )

    def _estimator(self, x: Array, y: Array) -> Any:
        pot = import_pot()
        # Both sides have mean 0, so the mean cost is the sum of the two variances.
        mean_cost = float(np.square(x).sum(1).mean() + np.square(y).sum(1).mean()) or 1.0
        self.settings["regularisation_over_squared_length"] = self.settings["regularisation"] * mean_cost
        return pot.da.SinkhornTransport(
            reg_e=self.settings["regularisation"] * mean_cost,
            max_iter=self.settings["max_iterations"],
            tol=self.settings["tolerance"],
        )

    def _transform(self, x: Array) -> Array:
        estimator = self._estimator_
        return self._stabilised(x, super()._transform, estimator.xt_, estimator.log_["log_v"])

    def _inverse_transform(self, y: Array) -> Array:
        estimator = self._estimator_
        return self._stabilised(y, super()._inverse_transform, estimator.xs_, estimator.log_["log_u"])

    def _stabilised(self, points: Array, function: Callable[[Array], Array], others: Array, dual: Array) -> Array:
        """POT's map, with rows where its kernel underflows to 0/0 computed by the same formula in logarithms."""
        with np.errstate(all="ignore"):
            image = function(points)
        bad = np.flatnonzero(~np.isfinite(image).all(1))
        if len(bad):
            note = "far points, where POT's kernel underflows, were mapped by the same formula in logarithms"
            self.notes += [note] * (note not in self.notes)
        for rows in np.array_split(bad, max(1, len(bad) * len(others) * 8 // _BATCH_BYTES)):
            logits = dual - import_pot().dist(points[rows], others) / self._estimator_.reg_e
            weights = np.exp(logits - logits.max(1, keepdims=True))
            image[rows] = weights @ others / weights.sum(1, keepdims=True)
        return image


class MappingMethod(_PotMethod):
    """Plan and kernel map fitted jointly (`ot.da.MappingTransport`, Gaussian kernel with bias); it has no inverse.

    Args:
        bandwidth: Of the kernel, over the larger side's root-mean-square spread.
        penalty: POT's `eta`, on the map.
        max_points: Cap on the points a side: every iteration solves a dense system and several exact plans.
        max_iterations: Cap on the outer iterations.

    References:
        Perrot, Courty, Flamary, Habrard (2016), Mapping estimation for discrete optimal transport, NeurIPS.
    """

    name = "MappingTransport"
    invertible = False

    def __init__(
        self,
        *,
        bandwidth: float = 1.0,
        penalty: float = 1e-3,
        max_points: int = 500,
        max_iterations: int = 20,
    ) -> None:
        super().__init__(max_points=max_points, bandwidth=bandwidth, penalty=penalty, max_iterations=max_iterations)

    def _estimator(self, x: Array, y: Array) -> Any:
        return import_pot().da.MappingTransport(
            kernel="gaussian",
            bias=True,
            sigma=self.settings["bandwidth"],
            eta=self.settings["penalty"],
            max_iter=self.settings["max_iterations"],
        )

    def _transform(self, x: Array) -> Array:
        rows = self._batch_size()
        blocks = [np.asarray(self._estimator_.transform(x[start : start + rows])) for start in range(0, len(x), rows)]
        return np.concatenate(blocks)
