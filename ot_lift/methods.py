"""Ways to map one dataset to another behind one small interface, for comparisons."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from ot_lift.brenier import BrenierMap

__all__ = [
    "BaseMethod",
    "BrenierMethod",
    "IdentityMethod",
    "Method",
    "W2Value",
]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class W2Value:
    """A method's own value of W2², squared data units.

    Attributes:
        value: The estimate.
        basis: What it is and on which points.
        lower: One-sided 95% lower limit, where the method has one.
        upper: One-sided 95% upper limit, where the method has one.
    """

    value: float
    basis: str
    lower: float | None = None
    upper: float | None = None


@runtime_checkable
class Method(Protocol):
    """What `ot_lift.compare.compare` asks of a method. Arrays are NumPy, `(n, features)`, in data units.

    Attributes:
        name: Shown in tables; unique within a comparison.
        settings: What it was run with, as JSON types.
        notes: Sentences on what it had to do, such as a cap on its points.
        keeps_budget: Whether `fit` itself ends near `max_seconds`. A method that does not is stopped from
            outside, and that is its result.
    """

    name: str
    settings: dict[str, Any]
    notes: list[str]
    keeps_budget: bool

    def fit(self, X: Array, Y: Array, *, random_state: int = 0, max_seconds: float | None = None) -> Self:
        """Fit the map from X `(n, features)` to Y `(m, features)`."""

    def transport(self, X: Array) -> Array:
        """Images of new source points, `(k, features)`."""

    def invert(self, Y: Array) -> Array | None:
        """Preimages of new target points, `(k, features)`; None if the method has no inverse."""

    def w2_squared(self) -> W2Value | None:
        """The method's own value of W2² after `fit`; None if it has none."""

    def details(self) -> dict[str, Any]:
        """What a report may show beside the figures (a training history, a certificate), as JSON types."""


class BaseMethod:
    """Settings and notes, and what a method without inverse, value or details answers.

    Args:
        **settings: Shown with the results, as JSON types.
    """

    name: str
    keeps_budget: bool = False

    def __init__(self, **settings: Any) -> None:
        self.settings: dict[str, Any] = settings
        self.notes: list[str] = []

    def invert(self, Y: Array) -> Array | None:
        """No inverse."""
        return None

    def w2_squared(self) -> W2Value | None:
        """No value."""
        return None

    def details(self) -> dict[str, Any]:
        """Nothing more to show."""
        return {}


class IdentityMethod(BaseMethod):
    """T(x) = x: what doing nothing scores.

    Example:
        >>> IdentityMethod().fit([[0.0]], [[1.0]]).transport(np.array([[5.0]]))
        array([[5.]])
    """

    name = "identity"

    def fit(self, X: Array, Y: Array, *, random_state: int = 0, max_seconds: float | None = None) -> Self:
        """Nothing to do."""
        return self

    def transport(self, X: Array) -> Array:
        """X itself."""
        return np.asarray(X)

    def invert(self, Y: Array) -> Array:
        """Y itself."""
        return np.asarray(Y)


class BrenierMethod(BaseMethod):
    """`ot_lift.BrenierMap`, with any of its parameters.

    Args:
        name: Shown in tables, to tell several settings apart.
        **parameters: Of `BrenierMap`; those left out have its defaults.
    """

    keeps_budget = True

    def __init__(self, *, name: str = "ot-lift", **parameters: Any) -> None:
        self.name = name
        self._parameters = parameters
        BrenierMap(**parameters)  # an unknown name is told now, not in a worker
        super().__init__(**{key: _plain(value) for key, value in parameters.items()})

    def fit(self, X: Array, Y: Array, *, random_state: int = 0, max_seconds: float | None = None) -> Self:
        """Fit; `random_state` and `max_seconds` apply where the parameters do not set them."""
        parameters = {"random_state": random_state, "max_seconds": max_seconds, **self._parameters}
        self.map = BrenierMap(**parameters).fit(X, Y)
        self.settings = {key: _plain(value) for key, value in self.map.get_params().items()}
        return self

    def transport(self, X: Array) -> Array:
        """∇φ(x)."""
        return np.asarray(self.map.transport(X))

    def invert(self, Y: Array) -> Array:
        """∇φ*(y)."""
        return np.asarray(self.map.invert(Y))

    def w2_squared(self) -> W2Value:
        """The dual value with its limits, from the certificate's points (used for nothing else in the fit)."""
        found = self.map.certificate_
        return W2Value(
            found.dual_value,
            "dual value on points of the fit kept for the certificate, with its limits",
            lower=found.w2_squared_lower,
            upper=found.w2_squared_upper,
        )

    def details(self) -> dict[str, Any]:
        """The training history, why it ended, and the certificate."""
        return {
            "history": self.map.history_,
            "stop_reason": self.map.stop_reason_,
            "certificate": self.map.certificate_.to_dict(),
        }


def _plain(value: Any) -> Any:
    """A parameter as a JSON type."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Iterable):
        return [_plain(item) for item in value]
    return repr(value)
