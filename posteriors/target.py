"""What a target of the catalogue is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Posterior:
    """A posterior on real data, twice: as a NumPyro model and as a torch log density.

    Attributes:
        name: how the catalogue calls it.
        names: a label for every unconstrained coordinate, in the order of the model's sites.
        model: the NumPyro model.
        arguments: its arguments, the data.
        log_density: unnormalised log density ``(n, dim)`` → ``(n,)`` in torch, equal to the model's with its
            constants.
        constrain: unconstrained points ``(n, dim)`` → values of the named sites, NumPy or torch as they come.
        citation: of data and model.
        strong_log_concavity: a known m > 0 with −∇² log π ⪰ mI everywhere, or None.
        smoothness: a known L with −∇² log π ⪯ LI everywhere, or None.
        mean: of the posterior ``(dim,)``, where it is known in closed form.
        covariance: likewise, ``(dim, dim)``.
    """

    name: str
    names: tuple[str, ...]
    model: Callable[..., None]
    arguments: tuple[Any, ...]
    log_density: Callable[[Tensor], Tensor]
    constrain: Callable[[Any], dict[str, Any]]
    citation: str
    strong_log_concavity: float | None = None
    smoothness: float | None = None
    mean: Array | None = None
    covariance: Array | None = None

    @property
    def dim(self) -> int:
        """Number of unconstrained coordinates."""
        return len(self.names)
