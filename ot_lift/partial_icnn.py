"""A potential that is convex in its points and takes a context in any way: one network, a closed form per context."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ot_lift.constrained import BoundPotential
from ot_lift.potentials import ICNN, Potential

_LARGEST_LOG_SCALE = 4.0
_FARTHEST = 8.0  # what the network of the context makes of a number; so it stays what it was where nothing was seen


class ContextPotential(Potential):
    r"""φ(x) = ICNN(A(x − m); b) + ½μ‖x‖², with shift m, matrix A and the network's biases b of every row's context.

    What :meth:`PartialICNN.at` gives. Row i of the points goes with row i of the contexts; one context serves any
    number of points.

    Args:
        network: convex, of ``features`` inputs.
        shift: m, ``(n, features)`` or ``(1, features)``.
        matrix: A, ``(n, features, features)`` or ``(1, features, features)``.
        biases: of the network's layers, each ``(n, width)`` or ``(1, width)``.
        strong_convexity: μ > 0.

    Example:
        >>> network = ICNN(1, (1,), squared=False, strong_convexity=0.0)
        >>> with torch.no_grad():
        ...     _ = network.readout.zero_()  # leaves ½x²
        >>> two = torch.tensor([[[2.0]]])
        >>> phi = ContextPotential(network, torch.ones(1, 1), two, [torch.zeros(1, 1)], strong_convexity=0.5)
        >>> phi(torch.tensor([[3.0]])).item()  # ½(2(3 − 1))² + ½·½·3²
        10.25
    """

    shift: Tensor
    matrix: Tensor

    def __init__(
        self, network: ICNN, shift: Tensor, matrix: Tensor, biases: Iterable[Tensor], *, strong_convexity: float
    ) -> None:
        super().__init__()
        self.features, self.network = network.features, network
        self._strong_convexity = float(strong_convexity)
        # As buffers they are cast, bound and saved with the network.
        self.register_buffer("shift", shift)
        self.register_buffer("matrix", matrix)
        for k, bias in enumerate(biases):
            self.register_buffer(f"bias_{k}", bias)

    @property
    def strong_convexity(self) -> float:
        return self._strong_convexity

    @property
    def biases(self) -> list[Tensor]:
        """Of every layer."""
        return [self.get_buffer(f"bias_{k}") for k in range(len(self.network.hidden_features))]

    def at_rows(self, rows: Tensor | slice) -> ContextPotential:
        if len(self.shift) == 1:
            return self
        biases = [bias[rows] for bias in self.biases]
        return ContextPotential(
            self.network, self.shift[rows], self.matrix[rows], biases, strong_convexity=self._strong_convexity
        )

    def _inner(self) -> Potential:
        return BoundPotential(self.network, {f"biases.{k}": bias for k, bias in enumerate(self.biases)})

    def _inside(self, v: Tensor) -> Tensor:
        """Av, row by row."""
        return v @ self.matrix[0].T if len(self.matrix) == 1 else (self.matrix @ v[:, :, None]).squeeze(2)

    def _outside(self, x: Tensor, g: Tensor) -> Tensor:
        """Aᵀg + μx, row by row."""
        back = g @ self.matrix[0] if len(self.matrix) == 1 else (g[:, None] @ self.matrix).squeeze(1)
        return torch.add(back, x, alpha=self._strong_convexity)

    def _value(self, x: Tensor, value: Tensor) -> Tensor:
        return value + 0.5 * self._strong_convexity * x.square().sum(1)

    def forward(self, x: Tensor) -> Tensor:
        return self._value(x, self._inner()(self._inside(x - self.shift)))

    def gradient(self, x: Tensor) -> Tensor:
        return self.value_gradient(x)[1]

    def value_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = self._inner().value_gradient(self._inside(x - self.shift))
        return self._value(x, value), self._outside(x, gradient)

    def linearise(self, x: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
        value, gradient, product = self._inner().linearise(self._inside(x - self.shift))

        def outer(v: Tensor) -> Tensor:
            return self._outside(v, product(self._inside(v)))

        return self._value(x, value), self._outside(x, gradient), outer

    def value_gradient_hessian(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value, gradient, hessian = self._inner().value_gradient_hessian(self._inside(x - self.shift))
        eye = torch.eye(self.features, dtype=x.dtype, device=x.device)
        hessian = torch.add(self.matrix.mT @ hessian @ self.matrix, eye, alpha=self._strong_convexity)
        return self._value(x, value), self._outside(x, gradient), hessian


class PartialICNN(nn.Module):
    r"""F(x, c), convex in x for every context c (Amos, Xu & Kolter 2017, arXiv 1609.07152, section 3.2, simplified).

    .. math::
        F(x, c) = \mathrm{ICNN}\bigl(A(c)(x - m(c));\, b(c)\bigr) + \tfrac12\mu\|x\|^2

    A network of the context, without constraints, gives the shift m, the lower triangular matrix A and the biases b of
    all layers; the weights of the convex network are common to all contexts. That loses nothing: as a supremum of
    affine functions :math:`a^\top x - F^*(a, c)`, a convex function has its dependence on c in the biases alone. For
    one context F is an :class:`~ot_lift.potentials.ICNN` in other coordinates, with all its closed forms.

    Args:
        features: dimension d of x.
        context_features: dimension k of c, standardised: numbers far beyond ±8 all count alike.
        hidden_features: widths of the convex network.
        context_hidden_features: widths of the network of the context.
        strong_convexity: μ > 0, in x, whatever the context.
        generator: source of the initial weights (default: a generator seeded with 0).
        dtype: of the parameters.
        **options: further arguments of :class:`~ot_lift.potentials.ICNN`.

    At the start m = 0, A = I and b does not depend on the context.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> F = PartialICNN(2, 3, (8, 8), context_hidden_features=(8,))
        >>> generator = torch.Generator().manual_seed(0)
        >>> x, c = torch.randn(5, 2, generator=generator), torch.randn(5, 3, generator=generator)
        >>> phi = F.at(c)
        >>> bool(torch.allclose(F(x, c), phi(x))), phi.gradient(x).shape
        (True, torch.Size([5, 2]))
        >>> bool((torch.linalg.eigvalsh(phi.hessian(x)) >= 0.99 * phi.strong_convexity).all())
        True
    """

    places: Tensor

    def __init__(
        self,
        features: int,
        context_features: int,
        hidden_features: Sequence[int] = (64, 64),
        *,
        context_hidden_features: Sequence[int] = (64, 64),
        strong_convexity: float = 1e-3,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if not 0 < strong_convexity < float("inf"):
            raise ValueError(f"expected strong_convexity > 0, got {strong_convexity!r}")
        source = generator or torch.Generator().manual_seed(0)
        self.features, self.context_features = int(features), int(context_features)
        self.strong_convexity = float(strong_convexity)
        self.network = ICNN(features, hidden_features, strong_convexity=0.0, generator=source, dtype=dtype, **options)
        self.register_buffer("places", torch.tril_indices(self.features, self.features, -1), persistent=False)
        self._sizes = (self.features, self.features, self.places.shape[1], *self.network.hidden_features)
        self.context = _Perceptron((context_features, *context_hidden_features, sum(self._sizes)), source, dtype)

    def config(self) -> dict[str, Any]:
        """Arguments that rebuild this network's structure (JSON-serialisable; the weights are not in it)."""
        return {
            **self.network.config(),
            "context_features": self.context_features,
            "context_hidden_features": list(self.context.widths),
            "strong_convexity": self.strong_convexity,
        }

    def at(self, context: Tensor) -> ContextPotential:
        """The potentials of contexts, as one.

        Args:
            context: ``(n, context_features)``, one for every point, or ``(1, context_features)`` for all of them.

        Returns:
            A potential of n points (of any number, for one context).

        Raises:
            ValueError: for contexts of another shape.
        """
        if context.ndim != 2 or context.shape[1] != self.context_features:
            raise ValueError(
                f"expected contexts of shape (n, {self.context_features}), got {tuple(context.shape)}: one row a point"
            )
        out: Tensor = self.context(_squashed(context, _FARTHEST))
        shift, log_scale, below, *biases = out.split(self._sizes, 1)
        matrix = torch.diag_embed(_squashed(log_scale, _LARGEST_LOG_SCALE).exp())
        matrix[:, self.places[0], self.places[1]] = below
        own = zip(self.network.biases, biases, strict=True)
        return ContextPotential(
            self.network, shift, matrix, [base + bias for base, bias in own], strong_convexity=self.strong_convexity
        )

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """F(x, c), ``(n, features)`` and ``(n, context_features)`` → ``(n,)``."""
        return self.at(context)(x)


def _squashed(x: Tensor, largest: float) -> Tensor:
    """About x where that is small, and within ±``largest`` everywhere."""
    return largest * torch.tanh(x / largest)


class _Perceptron(nn.Module):
    """A smooth network without constraints whose last layer starts at zero.

    Weights are divided by the root of their fan-in when they are used, so that a step of Adam moves an output by about
    as much whatever the widths (and by about as much as it moves a weight of the convex network).
    """

    def __init__(self, sizes: Sequence[int], generator: torch.Generator, dtype: torch.dtype | None) -> None:
        super().__init__()
        if min(sizes) < 1:
            raise ValueError(f"expected context_features and its widths to be whole numbers > 0, got {list(sizes)}")
        self.widths = tuple(int(width) for width in sizes[1:-1])
        pairs = list(itertools.pairwise(sizes))
        deviations = [2**0.5] * (len(pairs) - 1) + [0.0]
        self.weights = nn.ParameterList(
            nn.Parameter(deviation * torch.randn(out, into, generator=generator, dtype=dtype))
            for (into, out), deviation in zip(pairs, deviations, strict=True)
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(out, dtype=dtype)) for _, out in pairs)

    def forward(self, x: Tensor) -> Tensor:
        *hidden, (last, bias) = zip(self.weights, self.biases, strict=True)
        for weight, shift in hidden:
            x = functional.silu(functional.linear(x, weight / weight.shape[1] ** 0.5, shift))
        return functional.linear(x, last / last.shape[1] ** 0.5, bias)
