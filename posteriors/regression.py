"""What the regressions of the catalogue share: standardised columns, a site for the intercept and one for slopes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def standardised(columns: Any) -> Array:
    """Columns of mean 0 and variance 1, float64.

    Example:
        >>> standardised([[1.0], [3.0]]).ravel().tolist()
        [-1.0, 1.0]
    """
    values = np.asarray(columns, dtype=np.float64)
    return np.asarray((values - values.mean(0)) / values.std(0))


def with_ones(columns: Array) -> Array:
    """The design matrix: a column of ones, then the columns.

    Example:
        >>> with_ones(np.array([[5.0]])).tolist()
        [[1.0, 5.0]]
    """
    return np.column_stack([np.ones(len(columns)), columns])


def labels(slopes: int) -> tuple[str, ...]:
    """Labels of an intercept and the slopes.

    Example:
        >>> labels(2)
        ('intercept', 'slopes[0]', 'slopes[1]')
    """
    return ("intercept", *(f"slopes[{i}]" for i in range(slopes)))


def by_site(x: Any) -> dict[str, Any]:
    """Points ``(n, 1 + slopes)`` as the sites of a regression; nothing is constrained.

    Example:
        >>> {name: site.tolist() for name, site in by_site(np.array([[1.0, 2.0, 3.0]])).items()}
        {'intercept': [1.0], 'slopes': [[2.0, 3.0]]}
    """
    return {"intercept": x[:, 0], "slopes": x[:, 1:]}
