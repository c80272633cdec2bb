"""The Wasserstein-2 benchmark of Korotin et al. 2021 (arXiv 2106.01954): source, target and the true map.

The benchmark's potentials are given by their published weights (MIT licence), one pair of networks per dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

STRONG_CONVEXITY = 0.01  # each network carries 0.005‖x‖²
_MOMENT_SAMPLES = 1 << 18
_BLOCK = 1 << 14


def available_dimensions(folder: Path) -> list[int]:
    """Dimensions whose two weight files lie in ``folder``."""
    first = {int(path.stem.split("_")[0]) for path in folder.glob("*_v1.pt")}
    return sorted(d for d in first if (folder / f"{d}_v2.pt").exists())


def _network_gradient(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """∇D(x) of one published network, by hand: (n, d)."""
    layers = sum(key.startswith("convex_layers") for key in weights) + 1
    squares = [weights[f"quadratic_layers.{k}.quadratic_decomposed"][:, 0, :] for k in range(layers)]
    inputs = [weights[f"quadratic_layers.{k}.weight"] for k in range(layers)]
    biases = [weights[f"quadratic_layers.{k}.bias"] for k in range(layers)]
    below = [weights[f"convex_layers.{k}.weight"] for k in range(layers - 1)]
    slopes, projections = [], []
    output = torch.empty(0)
    for k in range(layers):
        projections.append(x @ squares[k])
        u = functional.linear(x, inputs[k], biases[k]) + projections[k] ** 2
        if k:
            u = u + output @ below[k - 1].T
            slopes.append(torch.exp(u.clamp_max(0)))
            output = functional.celu(u)
        else:
            output = u
    adjoint = weights["final_layer.weight"].expand(len(x), -1)
    gradient = STRONG_CONVEXITY * x
    for k in reversed(range(layers)):
        if k:
            adjoint = adjoint * slopes[k - 1]
        gradient = gradient + adjoint @ inputs[k] + 2 * (adjoint * projections[k]) @ squares[k].T
        if k:
            adjoint = adjoint @ below[k - 1]
    return gradient


@dataclass(frozen=True)
class Wasserstein2Benchmark:
    """Mix3 → Mix10 pair in one dimension of the benchmark; float64 inside.

    Attributes:
        features: d.
        target_variance: average over coordinates of the target's variance times d (the denominator of L2-UVP).
    """

    features: int
    centres: Tensor
    maps: Tensor
    weights: tuple[dict[str, Tensor], dict[str, Tensor]]
    shift: Tensor
    scale: float
    target_variance: float

    @classmethod
    def load(cls, folder: Path, features: int) -> Wasserstein2Benchmark:
        """Read the weights of dimension ``features`` and normalise the map as the benchmark does."""
        pair = []
        for version in ("v1", "v2"):
            state = torch.load(folder / f"{features}_{version}.pt", weights_only=True)
            pair.append({key: value.double() for key, value in state.items()})
        state = np.random.RandomState(0)  # the benchmark's own seed and legacy stream define the source
        centres = np.stack([state.choice(range(3), 3, replace=False) for _ in range(features)], axis=1) - 1.0
        maps = state.normal(size=(3, features, features))
        maps /= np.linalg.norm(maps, axis=2, keepdims=True)
        deviation = np.sqrt((np.mean((centres**2).sum(1)) + 0.16 * features) / features)
        raw = cls(
            features,
            torch.from_numpy(centres / deviation),
            torch.from_numpy(maps / deviation),
            (pair[0], pair[1]),
            torch.zeros(features, dtype=torch.float64),
            1.0,
            float("nan"),
        )
        image = raw.transport(raw.source(_MOMENT_SAMPLES, torch.Generator().manual_seed(20210603)))
        deviation = float(image.var(0).mean().sqrt())
        return cls(features, raw.centres, raw.maps, raw.weights, image.mean(0), deviation, float(features))

    def source(self, count: int, generator: torch.Generator) -> Tensor:
        """Fresh source points, ``(count, features)`` float64."""
        component = torch.randint(3, (count,), generator=generator)
        noise = torch.randn(count, self.features, generator=generator, dtype=torch.float64)
        points = torch.empty_like(noise)
        for k in range(3):
            rows = component == k
            points[rows] = 0.4 * noise[rows] @ self.maps[k].T + self.centres[k]
        return points

    def transport(self, x: Tensor) -> Tensor:
        """The true optimal map, ``(n, features)`` → ``(n, features)``."""
        nothing = x.new_zeros((), dtype=torch.float64)
        blocks = [
            sum((_network_gradient(w, block) for w in self.weights), nothing) for block in x.double().split(_BLOCK)
        ]
        return (torch.cat(blocks) - self.shift) / self.scale

    def target(self, count: int, generator: torch.Generator) -> Tensor:
        """Fresh target points, independent of any source points drawn before."""
        return self.transport(self.source(count, generator))
