"""A catalogue of log-concave posteriors on real data, with reference draws."""

from __future__ import annotations

import importlib
from functools import cache

from posteriors.reference import Reference, reference_draws
from posteriors.target import Posterior

__all__ = ["Posterior", "Reference", "load", "names", "reference"]

_NAMES = (
    *("cox_digit", "cox_photograph", "gamma_diabetes", "gamma_pumps", "lasso_diabetes", "linear_diabetes"),
    *("logistic_breast_cancer", "logistic_breast_cancer_laplace", "multinomial_digits", "multinomial_wine"),
    *("negative_binomial_linnerud", "ordinal_diabetes", "poisson_linnerud", "probit_iris", "weibull_leukaemia"),
)


def names() -> tuple[str, ...]:
    """What :func:`load` takes.

    Example:
        >>> "linear_diabetes" in names()
        True
    """
    return _NAMES


@cache
def load(name: str) -> Posterior:
    """A target of the catalogue.

    Raises:
        ValueError: for a name that is not in it.

    Example:
        >>> load("linear_diabetes").dim
        11
    """
    if name not in _NAMES:
        raise ValueError(f"expected one of {', '.join(_NAMES)}, got {name!r}")
    posterior: Posterior = importlib.import_module(f"posteriors.{name}").build()
    return posterior


def reference(name: str, **options: object) -> Reference:
    """Reference draws of a target by NUTS, run once and cached; see :func:`posteriors.reference.reference_draws`."""
    return reference_draws(load(name), **options)  # type: ignore[arg-type]
