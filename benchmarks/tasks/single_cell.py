"""One type of blood cell to another, in principal components (needs the package scanpy, whose data this is)."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from benchmarks.tasks import Array, Options, Problem, Task, Unavailable

_COMPONENTS = 10
_SOURCE, _TARGET = "CD14+ Monocyte", "Dendritic"


@dataclass(frozen=True)
class SingleCell(Task):
    """Half of the cells of either type to fit on, the others to judge on; `rows` is half of the rarer type."""

    @property
    def name(self) -> str:
        return "singlecell-pbmc"

    @property
    def title(self) -> str:
        return f"Single cells, d = {self.features}"

    @property
    def words(self) -> str:
        return (
            f"Blood cells of the type {_SOURCE!r} are sent to those of the type {_TARGET!r} in the first "
            f"{self.features} principal components of gene expression (Zheng et al. 2017, the reduced set that scanpy "
            "ships), as a perturbation would. The true map is not known: the energy distance decides against the level "
            "that two halves of the target reach. Cells are few, so that level is high."
        )

    def problem(self, seed: int) -> Problem:
        rng = np.random.default_rng(seed)
        (source, fresh), (target, other) = (_halves(side[rng.permutation(len(side))]) for side in cells(self.features))
        return Problem(source, target, fresh, other)


def _halves(points: Array) -> tuple[Array, Array]:
    middle = len(points) // 2
    return points[:middle], points[middle:]


@functools.cache
def cells(features: int) -> tuple[Array, Array]:
    """All cells of both types, `(n, features)`."""
    import scanpy

    data = scanpy.datasets.pbmc68k_reduced()
    kinds, components = np.asarray(data.obs["bulk_labels"].astype(str)), np.asarray(data.obsm["X_pca"], dtype=float)
    source, target = (components[kinds == kind, :features] for kind in (_SOURCE, _TARGET))
    return source, target


def tasks(options: Options) -> Iterable[Task]:
    """Ten components."""
    if find_spec("scanpy") is None:
        raise Unavailable("its data come with the package scanpy, which is not installed; pip install scanpy")
    source, target = cells(_COMPONENTS)
    least = min(len(source), len(target)) // 2
    sizes = options.sizes(least, least)
    return [SingleCell(features=_COMPONENTS, **sizes)]
