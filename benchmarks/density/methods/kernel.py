"""A Gaussian kernel around every point; held-out points choose its width."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Self

import numpy as np
import torch
from torch import Tensor

from benchmarks.density import BaseDensityMethod, DensityMethod, DensityTask
from benchmarks.density.whitened import Whitened
from benchmarks.tasks import Array

_BLOCK = 1 << 24  # distances at once
_TRIED = 1 << 27  # distances that widths are tried on
_HELD_OUT, _MOST_HELD_OUT, _LEAST_HELD_OUT = 0.2, 2000, 100


class KernelDensityMethod(BaseDensityMethod):
    """Kernel density estimation in whitened coordinates, all distances computed.

    Args:
        widths: Of the kernel, over Scott's n^(−1/(d+4)); a fifth of the points, at most 2,000 and of very many fewer,
            choose one by their log-likelihood under the others. The density is then that of all points.

    References:
        Scott 1992, Multivariate Density Estimation.

    Example:
        >>> method = KernelDensityMethod(widths=(1.0,)).fit(np.array([[-1.0], [1.0]]), random_state=0, max_seconds=1.0)
        >>> h = 2 ** (-1 / 5)
        >>> expected = -0.5 / h**2 - np.log(h) - 0.5 * np.log(2 * np.pi)  # two kernels, one deviation away
        >>> bool(np.isclose(method.log_prob(np.array([[0.0]]))[0], expected))
        True
    """

    name = "kernel density"

    def __init__(self, *, widths: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.3)) -> None:
        super().__init__(widths=list(widths))

    def fit(self, X: Array, *, random_state: int, max_seconds: float) -> Self:
        """Choose the width and keep the points."""
        self._units = Whitened.of(X)
        latent = torch.from_numpy(np.random.default_rng(random_state).permutation(self._units.to_latent(X)))
        held_out = min(_MOST_HELD_OUT, math.ceil(_HELD_OUT * len(latent)), max(_LEAST_HELD_OUT, _TRIED // len(latent)))
        widths = [width * _scott(len(latent), latent.shape[1]) for width in self.settings["widths"]]
        values = [0.0]
        if len(widths) > 1:
            logs = _log_density(latent[:held_out], latent[held_out:], widths)
            values = logs.mean(1).tolist()
        place = int(np.argmax(values))
        self._points, self._width = latent, widths[place]
        at_the_end = " (an end of the grid)" if len(widths) > 1 and place in (0, len(widths) - 1) else ""
        self.notes = [f"kernel {self.settings['widths'][place]:g} times Scott's wide, by validation{at_the_end}"]
        return self

    def log_prob(self, X: Array) -> Array:
        """Log-density `(k,)`."""
        latent = torch.from_numpy(self._units.to_latent(X))
        return _log_density(latent, self._points, [self._width])[0].numpy() - self._units.log_volume

    def sample(self, count: int, *, random_state: int) -> Array:
        """Draws `(count, features)`: points with noise."""
        rng = np.random.default_rng(random_state)
        centres = self._points.numpy()[rng.integers(len(self._points), size=count)]
        return self._units.to_data(centres + self._width * rng.normal(size=centres.shape))


def _scott(count: int, features: int) -> float:
    return float(count ** (-1 / (features + 4)))


def _log_density(x: Tensor, centres: Tensor, widths: list[float]) -> Tensor:
    """Log of the mean of kernels around `centres` `(n, d)` at x `(k, d)`, by width: `(widths, k)`."""
    normalisers = [
        math.log(len(centres)) + x.shape[1] * (math.log(width) + 0.5 * math.log(2 * math.pi)) for width in widths
    ]
    blocks = []
    for block in x.split(max(1, _BLOCK // len(centres))):
        squares = torch.cdist(block, centres).square_()
        logs = [torch.logsumexp(squares / (-2 * width**2), 1) for width in widths]
        blocks.append(torch.stack(logs))
    return torch.cat(blocks, 1) - torch.tensor(normalisers, dtype=x.dtype)[:, None]


def methods(task: DensityTask) -> Iterable[DensityMethod]:
    """Ten widths."""
    return [KernelDensityMethod()]
