"""Exceptions and warnings of the library, one class per thing a caller may want to catch."""

from __future__ import annotations

from sklearn.exceptions import NotFittedError

__all__ = [
    "ConvergenceError",
    "ConvergenceWarning",
    "DataError",
    "ExtrapolationWarning",
    "NotFittedError",
]


class DataError(ValueError):
    """Data, a file or a folder is not what was asked for.

    The message says what was expected, what was got and what to do. It is a `ValueError`, as
    scikit-learn's own checks raise.

    Example:
        >>> try:
        ...     raise DataError("expected X of shape (n, 3), got (5, 2)")
        ... except ValueError as error:
        ...     print(error)
        expected X of shape (n, 3), got (5, 2)
    """


class ConvergenceError(RuntimeError):
    """A numerical solve ended before its tolerance was met.

    Args:
        message: What was expected, what was reached and what to do.
        result: The record of the solve (value, residual, steps, converged), where there is one.

    Example:
        >>> error = ConvergenceError("residual 1e-3 is above 1e-8", result={"steps": 50})
        >>> error.result["steps"]
        50
    """

    def __init__(self, message: str, result: object = None) -> None:
        super().__init__(message)
        self.result = result


class ConvergenceWarning(UserWarning):
    """Training or a solve stopped early, and the best state so far was kept."""


class ExtrapolationWarning(UserWarning):
    """Points lie far outside the data that a map was fitted on."""
