"""The Wasserstein-2 benchmark of Korotin et al. 2021, in every dimension whose weights are found."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.quality import EVALUATION_SEED
from benchmarks.tasks import Options, Problem, Task, Unavailable
from benchmarks.w2_truth import Wasserstein2Benchmark, available_dimensions


@dataclass(frozen=True)
class Wasserstein2(Task):
    """Mixture to image of a mixture under the gradient of a published network.

    Attributes:
        folder: where the weights lie; no part of the settings.
        weights_sha256: what they are.
    """

    folder: Path = field(default=Path(), metadata={"setting": False})
    weights_sha256: str = ""

    @property
    def name(self) -> str:
        return f"wasserstein2-d{self.features}"

    @property
    def title(self) -> str:
        return f"Wasserstein-2 benchmark, d = {self.features}"

    @property
    def words(self) -> str:
        return (
            "A mixture of three Gaussians is sent to a target by the gradient of a known convex network, which is "
            "therefore the optimal map (Korotin et al. 2021, arXiv 2106.01954, Mix3 to Mix10, published weights). "
            "Source and target points are drawn independently."
        )

    def problem(self, seed: int) -> Problem:
        pair = _pair(self.folder, self.features)
        train, test = (torch.Generator().manual_seed(first + seed) for first in (2000, EVALUATION_SEED * 1000))
        source, target = pair.source(self.rows, train), pair.target(self.rows, train)
        fresh = pair.source(self.test_rows, test)
        points = source, target, fresh, pair.target(self.test_rows, test), pair.transport(fresh)
        return Problem(*(one.numpy() for one in points))


@functools.lru_cache(maxsize=1)
def _pair(folder: Path, features: int) -> Wasserstein2Benchmark:
    return Wasserstein2Benchmark.load(folder, features)


def _digest(folder: Path, features: int) -> str:
    contents = ((folder / f"{features}_{version}.pt").read_bytes() for version in ("v1", "v2"))
    return hashlib.sha256(b"".join(contents)).hexdigest()[:16]


def tasks(options: Options) -> Iterable[Task]:
    """One task for each dimension found in the data folder or in its subfolder `w2bench`."""
    if options.data is None:
        raise Unavailable("needs the benchmark's published weights; pass their folder as --data")
    places = (options.data, options.data / "w2bench")
    folder = next((place for place in places if available_dimensions(place)), None)
    if folder is None:
        raise Unavailable(f"no pair of files D_v1.pt and D_v2.pt in {options.data} nor in its subfolder w2bench")
    return [
        Wasserstein2(
            features=d,
            spend_budget=True,
            folder=folder,
            weights_sha256=_digest(folder, d),
            **options.sizes(200_000, 4_096, 600.0),
        )
        for d in available_dimensions(folder)
    ]
