"""Exact optimal transport between two samples: the value, its standard error, the duals and the plan."""

from __future__ import annotations

import importlib
import random
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ot_lift.distances import float64_pair, pairwise_distances

__all__ = ["ExactTransport", "emd_w2_squared", "exact_transport", "import_pot"]

_ITERATIONS = 10_000_000  # POT's default of 100,000 stops early from about 2,000 points on


def import_pot() -> Any:
    """POT, imported when it is first needed and without a trace in the caller's random streams.

    It imports every array library that is installed, JAX among them: seconds that a caller who transports
    points should not pay, and draws from the global generators of NumPy and Python.
    """
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        return importlib.import_module("ot")
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


@dataclass(frozen=True)
class ExactTransport:
    """Exact optimal transport between two samples, weights uniform, cost ‖x − y‖².

    Attributes:
        value: W2² of the two samples, squared data units.
        error: Standard error of `value` about its own expectation.
        source_potential: Optimal dual f, `(n,)`, mean 0.
        target_potential: Optimal dual g, `(m,)`, mean 0; f(x) + g(y) + `value` ≤ ‖x − y‖².
        plan: The coupling, `(n, m)`, with row sums 1/n and column sums 1/m.
        converged: Whether the network simplex ended at the optimum. If not, `value` is the cost of a coupling
            all the same and so lies above the optimum.
    """

    value: float
    error: float
    source_potential: npt.NDArray[np.float64]
    target_potential: npt.NDArray[np.float64]
    plan: npt.NDArray[np.float64]
    converged: bool


def exact_transport(X: object, Y: object) -> ExactTransport:
    """Exact optimal transport between two samples by POT's network simplex, with a standard error.

    The error is that of the central limit theorem for the empirical cost: with n and m points of two laws
    the value varies about its *expectation* with variance Var f(x)/n + Var g(y)/m, f and g the optimal
    Kantorovich potentials of the laws. What is approximate: f and g are the potentials of the samples
    themselves, and the law is the limit one. The expectation lies above the W2² of the laws, because W2² is
    jointly convex: the value is biased upward, more so as features grow, and serves as an upper bound alone.

    Args:
        X: `(n, features)`.
        Y: `(m, features)`. Memory is three n × m float64 matrices; 2,000 × 2,000 points take about a second.

    Returns:
        The value with its error, the dual potentials and the plan.

    References:
        del Barrio, Loubes (2019), Ann. Probab. 47(2), arXiv 1705.01299 (the limit law and its variance);
        Villani (2009), Optimal Transport, Theorem 4.8 (joint convexity).

    Example:
        >>> found = exact_transport([[0.0], [1.0]], [[3.0], [2.0]])
        >>> round(found.value, 12), found.converged  # 0 → 2 and 1 → 3
        (4.0, True)
    """
    x, y = float64_pair(X, Y)
    cost = pairwise_distances(x, y).square_().numpy()
    scale = float(cost.max()) or 1.0  # the simplex has absolute tolerances
    cost /= scale
    n, m = cost.shape
    weights = np.full(n, 1 / n), np.full(m, 1 / m)
    with warnings.catch_warnings(action="ignore"):  # that it stopped early is told by `converged`
        plan, log = import_pot().emd(*weights, cost, numItermax=_ITERATIONS, log=True, check_marginals=False)
    first, second = (scale * (log[key] - log[key].mean()) for key in ("u", "v"))
    variance = sum(values.var(ddof=1) / len(values) for values in (first, second) if len(values) > 1)
    return ExactTransport(
        value=max(0.0, scale * float((plan * cost).sum())),
        error=float(np.sqrt(variance)),
        source_potential=first,
        target_potential=second,
        plan=plan,
        converged=log["result_code"] == 1,
    )


def emd_w2_squared(X: object, Y: object) -> float:
    """Exact W2² between two samples with uniform weights, E‖x − y‖² under the best coupling (no ½, no root).

    For its standard error, the dual potentials and what its bias means, see `exact_transport`.

    Args:
        X: `(n, features)`.
        Y: `(m, features)`.

    Returns:
        Squared data units.

    Example:
        >>> round(emd_w2_squared([[0.0], [2.0]], [[1.0], [1.0], [3.0], [3.0]]), 12)
        1.0
    """
    return exact_transport(X, Y).value
