"""What estimators of a density say alike, and answers in the caller's kind of array."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from sklearn.base import BaseEstimator, DensityMixin
from torch import Tensor

from ot_lift.data import as_batch
from ot_lift.errors import NotFittedError
from ot_lift.estimators import numbers_of, significantly_better
from ot_lift.likelihood import block_rows
from ot_lift.maps import in_blocks


class DensityEstimator(DensityMixin, BaseEstimator, ABC):
    """What estimators of a density say alike: that they are not fitted, scores, and answers in the caller's arrays."""

    n_features_in_: int

    @abstractmethod
    def log_prob(self, X: Any) -> Any:
        """Log-density at X, ``(n, d)`` → ``(n,)``, in nats and the units of the data."""

    def score_samples(self, X: Any) -> Any:
        """:meth:`log_prob` under scikit-learn's name."""
        return self.log_prob(X)

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log-density of X, nats; greater is better. ``y`` is not used."""
        self._check_fitted()
        x, _ = as_batch(numbers_of(X), name="X", features=self.n_features_in_)
        return float(self.log_prob(x.double()).mean())

    def _check_fitted(self) -> None:
        if not hasattr(self, "n_features_in_"):
            name = type(self).__name__
            raise NotFittedError(f"this {name} is not fitted yet: call fit(X) first, or {name}.load(folder)")

    def _apply(self, function: Callable[[Tensor], Tensor], points: Any, name: str, **options: Any) -> Any:
        self._check_fitted()
        d = self.n_features_in_
        return answer(function, points, name=name, features=d, rows=block_rows(d), **options)


def answer(
    function: Callable[[Tensor], Tensor],
    points: Any,
    *,
    name: str,
    features: int,
    rows: int,
    check: Callable[[Tensor], None] | None = None,
) -> Any:
    """Validate points, apply a function to blocks of rows in float64 on the CPU, answer in the caller's kind of array.

    Args:
        function: ``(n, features)`` → a tensor of n rows.
        points: array, frame, list or tensor ``(n, features)``.
        name: what messages call them.
        features: columns expected.
        rows: of a block.
        check: called with the points, float64 on the CPU, before anything is computed.

    Raises:
        DataError: if the points are not finite real numbers of that shape.

    Example:
        >>> answer(lambda x: 2 * x, [[1, 2]], name="X", features=2, rows=10)
        array([[2., 4.]])
    """
    tensor, restore = as_batch(numbers_of(points), name=name, features=features)
    x = tensor.cpu().double()
    if check is not None:
        check(x)
    return restore(in_blocks(function, x, rows))


def preferred(before: Tensor, after: Tensor) -> tuple[bool, float, float]:
    """Which of two densities some points prefer: the trained one only if its gain is significant.

    Args:
        before: log-density ``(n,)`` of the start at n ≥ 2 points that neither has seen.
        after: that of what was trained.

    Returns:
        Whether it is the trained one; the mean log-density of the preferred one, and its standard error.

    Example:
        >>> import torch
        >>> preferred(torch.zeros(4), torch.tensor([1.0, 1.0, 1.5, 0.5]))[:2]
        (True, 1.0)
    """

    def mean_and_error(values: Tensor) -> tuple[float, float]:
        return float(values.mean()), float(values.std()) / len(values) ** 0.5

    used = significantly_better(*mean_and_error(after - before), points=len(before))
    return used, *mean_and_error(after if used else before)
