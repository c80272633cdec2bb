"""Draws as what ArviZ takes, for both of its generations."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt


def to_inference_data(
    sites: Mapping[str, npt.NDArray[Any]], log_likelihood: Mapping[str, npt.NDArray[Any]], *, chains: int
) -> Any:
    """Named draws as ArviZ's ``InferenceData`` (before 1.0) or ``DataTree`` (from 1.0 on).

    Args:
        sites: draws ``(n, *shape)`` by name; n a multiple of ``chains``.
        log_likelihood: pointwise log likelihood ``(n, *shape)`` by name; may be empty.
        chains: how many chains to split the draws into.

    Raises:
        ImportError: without ArviZ.

    Example:
        >>> data = to_inference_data({"a": np.arange(8.0)}, {}, chains=2)
        >>> dict(data["posterior"].sizes)
        {'chain': 2, 'draw': 4}
    """
    try:
        arviz: Any = importlib.import_module("arviz")  # its two generations have two signatures
    except ImportError as error:
        raise ImportError("expected ArviZ to be installed: pip install 'ot-lift[posteriors]'") from error

    def split(group: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        return {name: np.asarray(v).reshape(chains, -1, *np.shape(v)[1:]) for name, v in group.items()}

    groups = {"posterior": split(sites)}
    if log_likelihood:
        groups["log_likelihood"] = split(log_likelihood)
    if int(arviz.__version__.split(".")[0]) >= 1:
        return arviz.from_dict(groups)
    return arviz.from_dict(**groups)
