"""A potential whose gradient can grow faster than linearly, for posteriors with tails heavier than a Gaussian's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ot_lift.positivity import mark_nonnegative
from ot_lift.potentials import ICNN

# Weight of a cubic unit at the start. Draws seldom reach the tails that it is for, so training hardly moves it: from
# 1e-3 a Weibull regression's tails stay too light (k-hat of 100,000 draws 1.2, from 0.03 at most 0.3 on three seeds).
_SMALL = 0.03
_ONSET = 0.5  # latent standard deviations from which a cubic unit rises


class CubicICNN(ICNN):
    r"""An input-convex network plus one-sided cubic units.

    .. math::
        \varphi(x) = \mathrm{ICNN}(x) + \tfrac16\sum_k a_k\,(v_k^\top x + c_k)_+^3, \qquad a_k \ge 0 .

    The gradient of an ICNN grows linearly and maps a Gaussian to Gaussian tails. With cubic units it grows
    quadratically in some directions, which gives exponential tails there: the heaviest that a log-concave density has.

    Args:
        features: dimension d.
        hidden_features: width of every hidden layer of the network.
        cubic: number of cubic units.
        generator: source of the initial weights.
        **options: further arguments of :class:`~ot_lift.potentials.ICNN`.

    Example:
        >>> phi = CubicICNN(1, (4,), cubic=1)
        >>> with torch.no_grad():
        ...     _ = phi.cubic_weights.fill_(6.0), phi.cubic_inputs.fill_(1.0), phi.cubic_biases.zero_()
        >>> x = torch.tensor([[2.0]])
        >>> tail = phi(x) - ICNN.forward(phi, x), phi.gradient(x) - ICNN.value_gradient(phi, x)[1]
        >>> [round(part.item(), 4) for part in tail]  # x³ and 3x²
        [8.0, 12.0]
    """

    def __init__(
        self,
        features: int,
        hidden_features: Sequence[int] = (64, 64),
        *,
        cubic: int = 32,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        source = generator or torch.Generator().manual_seed(0)
        super().__init__(features, hidden_features, generator=source, dtype=dtype, **options)
        directions = torch.randn(cubic, features, generator=source, dtype=dtype)
        self.cubic_inputs = nn.Parameter(functional.normalize(directions))
        self.cubic_biases = nn.Parameter(torch.full((cubic,), -_ONSET, dtype=dtype))
        self.cubic_weights = nn.Parameter(torch.full((cubic,), _SMALL, dtype=dtype))
        mark_nonnegative(self.cubic_weights)

    def config(self) -> dict[str, Any]:
        """Arguments that rebuild this network's structure (JSON-serialisable; the weights are not in it)."""
        return {**super().config(), "cubic": len(self.cubic_weights)}

    def _excess(self, x: Tensor) -> Tensor:
        """(v·x + c)₊ of every unit, ``(n, cubic)``."""
        return functional.relu(functional.linear(x, self.cubic_inputs, self.cubic_biases))

    def _slope(self, excess: Tensor) -> Tensor:
        return (0.5 * excess.square() * self.cubic_weights) @ self.cubic_inputs

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self._excess(x).pow(3) @ self.cubic_weights / 6.0

    def value_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = super().value_gradient(x)
        excess = self._excess(x)
        return value + excess.pow(3) @ self.cubic_weights / 6.0, gradient + self._slope(excess)

    def linearise(self, x: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        value, gradient, inner = super().linearise(x)
        excess = self._excess(x)
        bend = excess * self.cubic_weights

        def product(v: Tensor) -> Tensor:
            return inner(v) + (bend * functional.linear(v, self.cubic_inputs)) @ self.cubic_inputs

        return value + excess.pow(3) @ self.cubic_weights / 6.0, gradient + self._slope(excess), product

    def value_gradient_hessian(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value, gradient, hessian = super().value_gradient_hessian(x)
        excess = self._excess(x)
        bent = (excess * self.cubic_weights)[:, :, None] * self.cubic_inputs
        hessian = hessian + self.cubic_inputs.T @ bent
        return value + excess.pow(3) @ self.cubic_weights / 6.0, gradient + self._slope(excess), hessian

    def hessian_with_slope(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        hessian, inner = super().hessian_with_slope(x)
        with torch.no_grad():
            directions = self.cubic_inputs.detach()
            excess, weights = self._excess(x), self.cubic_weights.detach()
            hessian += directions.T @ ((excess * weights)[:, :, None] * directions)
            bends = (excess > 0) * weights

        def slope(matrix: Tensor) -> Tensor:
            return inner(matrix) + (((matrix @ directions.T) * directions.T).sum(1) * bends) @ directions

        return hessian, slope
