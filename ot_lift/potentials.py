"""Convex potentials with closed-form derivatives: the contract, input-convex networks and quadratics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ot_lift.activations import Activation
from ot_lift.hessians import Constants
from ot_lift.hessians_slope import hessian_with_slope
from ot_lift.hessians_sweep import sweep
from ot_lift.initialisers import folded_normal_, principled_
from ot_lift.positivity import mark_nonnegative
from ot_lift.potentials_autograd import AutogradPotential
from ot_lift.potentials_contract import Potential, check_positive, check_strong_convexity

__all__ = ["ICNN", "AutogradPotential", "Potential", "Quadratic"]

_SKIP_VARIANCE = 0.45


class Quadratic(Potential):
    r"""φ(x) = ½ xᵀQx + bᵀx + c with :math:`Q = LL^\top + \mu I`.

    Args:
        features: dimension d.
        strong_convexity: μ ≥ 0.
        dtype: of the parameters (default: torch's default dtype).

    The parameters start at :math:`Q = \max(1, \mu) I`, so that ∇φ is the identity for μ ≤ 1.

    Example:
        >>> q = Quadratic(2)
        >>> q.set_quadratic_(torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
        >>> [round(slope, 5) for slope in q.gradient(torch.tensor([[1.0, 1.0]]))[0].tolist()]
        [2.0, 3.0]
    """

    def __init__(self, features: int, *, strong_convexity: float = 0.0, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        check_positive("features", features)
        check_strong_convexity(strong_convexity)
        self.features = int(features)
        self._strong_convexity = float(strong_convexity)
        root = max(1.0 - self._strong_convexity, 0.0) ** 0.5
        self.factor = nn.Parameter(root * torch.eye(self.features, dtype=dtype))
        self.linear = nn.Parameter(torch.zeros(self.features, dtype=dtype))
        self.offset = nn.Parameter(torch.zeros((), dtype=dtype))

    @property
    def strong_convexity(self) -> float:
        return self._strong_convexity

    def matrix(self) -> Tensor:
        """Q, shape ``(features, features)``."""
        eye = torch.eye(self.features, dtype=self.factor.dtype, device=self.factor.device)
        return self.factor @ self.factor.T + self._strong_convexity * eye

    @torch.no_grad()
    def set_quadratic_(self, matrix: Tensor, linear: Tensor | None = None) -> None:
        """Write Q (its part above μI, clipped to be positive semi-definite) and optionally the linear term."""
        eye = torch.eye(self.features, dtype=torch.float64, device=matrix.device)
        excess = matrix.double() - self._strong_convexity * eye
        values, vectors = torch.linalg.eigh(0.5 * (excess + excess.T))
        root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
        self.factor.copy_(root.to(self.factor))
        if linear is not None:
            self.linear.copy_(linear.to(self.linear))

    def forward(self, x: Tensor) -> Tensor:
        half = (x @ self.factor).square().sum(-1) + self._strong_convexity * x.square().sum(-1)
        return 0.5 * half + x @ self.linear + self.offset

    def gradient(self, x: Tensor) -> Tensor:
        return (x @ self.factor) @ self.factor.T + self._strong_convexity * x + self.linear

    def value_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        gradient = self.gradient(x)
        return 0.5 * ((gradient + self.linear) * x).sum(-1) + self.offset, gradient

    def linearise(self, x: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        def product(v: Tensor) -> Tensor:
            return (v @ self.factor) @ self.factor.T + self._strong_convexity * v

        return self(x), self.gradient(x), product

    def value_gradient_hessian(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self(x), self.gradient(x), self.matrix().expand(len(x), -1, -1)


@dataclass
class _Forward:
    """What a forward sweep leaves for the derivatives: per layer σ(u), σ′(u), u and Cx."""

    value: Tensor
    pre: list[Tensor]
    slope: list[Tensor]
    squared: list[Tensor]


class ICNN(Potential):
    r"""Input-convex network plus a full quadratic (Amos, Xu & Kolter 2017, arXiv 1609.07152).

    .. math::
        u_k = W_k\,\sigma(u_{k-1}) + A_k x + (C_k x)^2 + b_k, \qquad
        \varphi(x) = w^\top\sigma(u_{K}) + \tfrac12 x^\top(LL^\top + \mu I)x + a^\top x + c

    with :math:`W_k, w \ge 0` elementwise and σ convex and non-decreasing. The non-negative tensors are ordinary
    parameters that hold the *effective* weights and are marked for :class:`~ot_lift.lift.Lift` and
    :class:`~ot_lift.lift.Constrained`, which keep them non-negative while training. The squared units are those of
    Korotin et al. 2021 ("Do neural optimal transport solvers work?", arXiv 2106.01954).

    Derivatives are closed forms: with :math:`p_k = \partial\varphi/\partial\sigma(u_k) \ge 0` and the Jacobians
    :math:`J_k = W_k\,\mathrm{diag}(\sigma'_{k-1})J_{k-1} + A_k + 2\,\mathrm{diag}(C_kx)C_k`,

    .. math::
        \nabla^2\varphi = LL^\top + \mu I + \sum_k J_k^\top\mathrm{diag}(p_k\sigma''_k)J_k
            + C_k^\top\mathrm{diag}(2p_k\sigma'_k)C_k ,

    a sum of positive semi-definite terms.

    Args:
        features: dimension d of the input.
        hidden_features: width of every hidden layer.
        activation: ``"softplus"``, ``"celu"`` or ``"squareplus"``.
        sharpness: β of σ(u) = softplus(βu)/β.
        learn_sharpness: make β one trainable number per layer (kept positive as exp).
        squared: add the squared units (C_k x)².
        strong_convexity: μ ≥ 0.
        initialiser: ``"folded_normal"`` or ``"principled"`` (Hoedt & Klambauer 2023, arXiv 2312.12474).
        generator: source of the initial weights (default: a generator seeded with 0; the global one is not used).
        dtype: of the parameters.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> phi = ICNN(2, (8, 8))
        >>> x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
        >>> value, gradient, hessian = phi.value_gradient_hessian(x)
        >>> value.shape, gradient.shape, hessian.shape
        (torch.Size([5]), torch.Size([5, 2]), torch.Size([5, 2, 2]))
        >>> bool((torch.linalg.eigvalsh(hessian) >= phi.strong_convexity * 0.999).all())
        True
    """

    def __init__(
        self,
        features: int,
        hidden_features: Sequence[int] = (64, 64, 64),
        *,
        activation: str = "softplus",
        sharpness: float = 4.0,
        learn_sharpness: bool = False,
        squared: bool = True,
        strong_convexity: float = 1e-2,
        initialiser: str = "folded_normal",
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_positive("features", features)
        widths = [int(width) for width in hidden_features]
        if not widths:
            raise ValueError("expected hidden_features to hold at least one width, got none")
        for width in widths:
            check_positive("hidden_features", width)
        check_positive("sharpness", sharpness)
        if initialiser not in ("principled", "folded_normal"):
            raise ValueError(f"expected initialiser 'principled' or 'folded_normal', got {initialiser!r}")
        self.features = int(features)
        self.hidden_features = tuple(widths)
        self.activation = Activation(activation)
        self.squared = bool(squared)
        self.quadratic = Quadratic(features, strong_convexity=strong_convexity, dtype=dtype)
        self.log_sharpness = nn.Parameter(torch.full((len(widths),), float(sharpness), dtype=dtype).log())
        self.learn_sharpness = bool(learn_sharpness)
        self._fixed_sharpness = float(sharpness)
        if not learn_sharpness:
            del self.log_sharpness
        self._make_weights(initialiser, generator or torch.Generator().manual_seed(0), dtype)

    def _make_weights(self, initialiser: str, generator: torch.Generator, dtype: torch.dtype | None) -> None:
        d, widths = self.features, self.hidden_features

        def normal(rows: int, deviation: float) -> nn.Parameter:
            return nn.Parameter(deviation * torch.randn(rows, d, generator=generator, dtype=dtype))

        # Input skips carry a share of a pre-activation's variance; the principled weights leave them room for it.
        skip_variance = _SKIP_VARIANCE if initialiser == "principled" else 1.0
        deviations = [d**-0.5] + [(skip_variance / d) ** 0.5] * (len(widths) - 1)
        self.inputs = nn.ParameterList([normal(h, deviation) for h, deviation in zip(widths, deviations, strict=True)])
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(h, dtype=dtype)) for h in widths])
        self.squares = nn.ParameterList([normal(h, 0.5 * d**-0.5) for h in widths] if self.squared else [])
        sizes = [*zip(widths[1:], widths[:-1], strict=True), (1, widths[-1])]
        weights = [nn.Parameter(torch.empty(out, into, dtype=dtype)) for out, into in sizes]
        with torch.no_grad():
            for weight, bias in zip(weights, [*self.biases[1:], None], strict=True):
                if initialiser == "principled":
                    principled_(
                        weight,
                        bias,
                        generator,
                        skip_variance=_SKIP_VARIANCE,
                        activation=lambda u: self.activation.value(u, self._fixed_sharpness),
                    )
                else:
                    folded_normal_(weight, generator=generator)
        self.weights = nn.ParameterList(weights[:-1])
        self.readout = weights[-1]
        mark_nonnegative(*self.weights, self.readout)

    @property
    def strong_convexity(self) -> float:
        return self.quadratic.strong_convexity

    def config(self) -> dict[str, Any]:
        """Arguments that rebuild this network's structure (JSON-serialisable; the weights are not in it)."""
        return {
            "features": self.features,
            "hidden_features": list(self.hidden_features),
            "activation": self.activation.name,
            "sharpness": self._fixed_sharpness,
            "learn_sharpness": self.learn_sharpness,
            "squared": self.squared,
            "strong_convexity": self.strong_convexity,
        }

    def sharpness(self, layer: int) -> Tensor | float:
        """β of a layer, counted from 0."""
        return self.log_sharpness[layer].exp() if self.learn_sharpness else self._fixed_sharpness

    def _forward(self, x: Tensor, *, slopes: bool = True) -> _Forward:
        state = _Forward(x, [], [], [])
        below = x
        for k, (into, bias) in enumerate(zip(self.inputs, self.biases, strict=True)):
            u = functional.linear(x, into, bias)
            if self.squared:
                state.squared.append(functional.linear(x, self.squares[k]))
                u = torch.addcmul(u, state.squared[k], state.squared[k])
            if k:
                u = torch.addmm(u, below, self.weights[k - 1].T)
            beta = self.sharpness(k)
            below = self.activation.value(u, beta)
            state.pre.append(u)
            if slopes:
                state.slope.append(self.activation.slope(u, beta))
        state.value = functional.linear(below, self.readout).squeeze(-1) + self.quadratic(x)
        return state

    def _backward(self, x: Tensor, state: _Forward) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """∇φ(x) with the adjoints p = ∂φ/∂σ(u) and t = ∂φ/∂u of every layer."""
        # Summed as (features, n): products whose result has few columns run at a fraction of the others' rate.
        gradient = self.quadratic.gradient(x).T
        p = self.readout.expand(len(x), -1)
        adjoints: list[Tensor] = []
        tangents: list[Tensor] = []
        for k in reversed(range(len(self.hidden_features))):
            t = p * state.slope[k]
            adjoints.insert(0, p)
            tangents.insert(0, t)
            gradient = torch.addmm(gradient, self.inputs[k].T, t.T)
            if self.squared:
                gradient = torch.addmm(gradient, self.squares[k].T, (t * state.squared[k]).T, alpha=2)
            if k:
                p = t @ self.weights[k - 1]
        return gradient.T, adjoints, tangents

    def _bends(self, state: _Forward, p: list[Tensor]) -> list[Tensor]:
        """p·σ″(u) of every layer."""
        layers = zip(p, state.pre, state.slope, strict=True)
        return [
            adjoint * self.activation.curvature(u, slope, self.sharpness(k))
            for k, (adjoint, u, slope) in enumerate(layers)
        ]

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(x, slopes=False).value

    def gradient(self, x: Tensor) -> Tensor:
        return self.value_gradient(x)[1]

    def value_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        state = self._forward(x)
        return state.value, self._backward(x, state)[0]

    def linearise(self, x: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        state = self._forward(x)
        gradient, p, t = self._backward(x, state)
        bends = self._bends(state, p)
        quadratic = self.quadratic.linearise(x)[2]

        def product(v: Tensor) -> Tensor:
            moves: list[Tensor] = []
            squares: list[Tensor] = []
            for k in range(len(p)):
                move = functional.linear(v, self.inputs[k])
                if self.squared:
                    squares.append(functional.linear(v, self.squares[k]))
                    move = torch.addcmul(move, state.squared[k], squares[k], value=2)
                if k:
                    move = torch.addmm(move, state.slope[k - 1] * moves[k - 1], self.weights[k - 1].T)
                moves.append(move)
            result = quadratic(v)
            p_move: Tensor | None = None
            for k in reversed(range(len(p))):
                t_move = bends[k] * moves[k]
                if p_move is not None:
                    t_move = torch.addcmul(t_move, p_move, state.slope[k])
                result = torch.addmm(result, t_move, self.inputs[k])
                if self.squared:
                    s_move = torch.addcmul(t_move * state.squared[k], t[k], squares[k])
                    result = torch.addmm(result, s_move, self.squares[k], alpha=2)
                if k:
                    p_move = t_move @ self.weights[k - 1]
            return result

        return state.value, gradient, product

    def value_gradient_hessian(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not torch.is_grad_enabled() and x.device.type == "cpu":
            return sweep(self, x)
        n, d, constants = len(x), self.features, Constants.of(self)
        state = self._forward(x)
        gradient, p, t = self._backward(x, state)
        bends = self._bends(state, p)
        hessian = constants.sum_outer(constants.columns(state.squared, t, bends), n)
        jacobian = x
        for k, width in enumerate(self.hidden_features):
            direct = constants.inputs[k]
            if self.squared:
                direct = torch.addcmul(direct, state.squared[k][:, None], constants.squares[k])
            direct = direct.expand(n, d, width)
            if k:
                below = (jacobian * state.slope[k - 1][:, None]).flatten(0, 1)
                direct = torch.addmm(direct.flatten(0, 1), below, constants.weights[k - 1]).view(n, d, width)
            jacobian = direct
            if k or not constants.first_in_table:
                hessian = torch.baddbmm(hessian, jacobian * bends[k][:, None], jacobian.transpose(1, 2))
        return state.value, gradient, hessian

    def hessian_with_slope(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        return hessian_with_slope(self, x)
