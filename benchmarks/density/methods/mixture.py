"""Scikit-learn's mixture of Gaussians; BIC chooses how many."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Self

import numpy as np
from sklearn.mixture import GaussianMixture

from benchmarks.density import BaseDensityMethod, DensityMethod, DensityTask
from benchmarks.density.whitened import Whitened
from benchmarks.tasks import Array

_SPENT = 0.3  # of the budget, after which no larger mixture is begun: it may take twice as long as all before


class GaussianMixtureMethod(BaseDensityMethod):
    """Full covariances, fitted by EM in whitened coordinates with 1, 2, 4, … components while the budget lasts.

    Args:
        components: Numbers of them to try, ascending.
        starts: Of EM by k-means, for each number.
    """

    name = "Gaussian mixture"

    def __init__(self, *, components: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64), starts: int = 1) -> None:
        super().__init__(components=list(components), starts=starts)

    def fit(self, X: Array, *, random_state: int, max_seconds: float) -> Self:
        """Fit every number of components, and keep the one with the least BIC."""
        began = time.monotonic()
        self._units = Whitened.of(X)
        points = self._units.to_latent(X)
        values: dict[int, float] = {}
        for count in self.settings["components"]:
            if count > len(points) or (values and time.monotonic() - began > _SPENT * max_seconds):
                break
            mixture = GaussianMixture(count, n_init=self.settings["starts"], max_iter=500, random_state=random_state)
            value = float(mixture.fit(points).bic(points))
            if value < min(values.values(), default=np.inf):
                self._mixture = mixture
            values[count] = value
        tried = ", ".join(f"{count} ({value:,.0f})" for count, value in values.items())
        self.notes = [f"{self._mixture.n_components} components, by BIC; tried: {tried}"]
        return self

    def log_prob(self, X: Array) -> Array:
        """Log-density `(k,)`."""
        return np.asarray(self._mixture.score_samples(self._units.to_latent(X))) - self._units.log_volume

    def sample(self, count: int, *, random_state: int) -> Array:
        """Draws `(count, features)`; they come sorted by component."""
        self._mixture.random_state = random_state
        return self._units.to_data(np.asarray(self._mixture.sample(count)[0]))


def methods(task: DensityTask) -> Iterable[DensityMethod]:
    """Up to 64 components, to 8 in a quick look."""
    return [GaussianMixtureMethod(components=(1, 2, 4, 8)) if task.quick else GaussianMixtureMethod()]
