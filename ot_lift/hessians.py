"""Value, gradient and Hessian of an input-convex network at many points, without autograd, in one fast sweep."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ot_lift.activations import Activation, InSweep

# A sweep takes its first-order part in blocks of so many numbers a layer, its Jacobians in blocks of about so many
# bytes. Their buffers are kept from sweep to sweep: fresh pages from the system cost up to a third of a sweep.
_LAYER_NUMBERS, _JACOBIAN_BYTES = 1 << 18, 1 << 20

# Up to this dimension the first layer's Hessian, three numbers a unit, is one product with a table of outer products.
_TABLE_UP_TO = 16


class Network(Protocol):
    """What is swept: an :class:`~ot_lift.potentials.ICNN`, in its notation."""

    features: int
    hidden_features: tuple[int, ...]
    activation: Activation
    squared: bool
    quadratic: Any
    inputs: nn.ParameterList
    biases: nn.ParameterList
    squares: nn.ParameterList
    weights: nn.ParameterList
    readout: nn.Parameter

    def sharpness(self, layer: int) -> Tensor | float:
        """β of a layer."""


@dataclass
class Constants:
    """What a Hessian sweep needs of a network's parameters: Wᵀ, Aᵀ, 2Cᵀ, and tables of outer products.

    Of the symmetric matrices Q and the tables' rows only the upper triangle is kept; ``places`` spreads it out again.
    """

    features: int
    quadratic: Tensor
    weights: list[Tensor]
    inputs: list[Tensor]
    squares: list[Tensor]
    tables: list[Tensor]
    places: Tensor
    first_in_table: bool

    @classmethod
    def of(cls, network: Network) -> Constants:
        """The constants of a network, differentiable in its parameters."""
        d, squares = network.features, [c.T for c in network.squares]
        first_in_table = d <= _TABLE_UP_TO
        rows, columns, places = triangle(d, network.readout.device)
        # Transposed: what is gathered then lies side by side. All tables are gathered at once.
        left, right = list(squares), [2 * c for c in squares]
        doubled = list(right)
        if first_in_table:
            a = network.inputs[0].T
            left += [a, *([a, squares[0]] if squares else [])]
            right += [a, *([doubled[0], 2 * a] if squares else [])]
        tables: list[Tensor] = []
        if left:
            products = torch.cat(left, 1)[rows] * torch.cat(right, 1)[columns]
            tables = [product.T for product in products.split([part.shape[1] for part in left], 1)]
            if first_in_table and squares:
                tables[-2:] = [tables[-2] + tables[-1]]
        return cls(
            d,
            network.quadratic.matrix()[rows, columns],
            [w.T for w in network.weights],
            [a.T.contiguous() for a in network.inputs],
            [twice.contiguous() for twice in doubled],
            tables,
            places,
            first_in_table,
        )

    def columns(self, squared: Sequence[Tensor], t: Sequence[Tensor], bends: Sequence[Tensor]) -> list[Tensor]:
        """What the rows of each table are summed with.

        Args:
            squared: s = Cx of every layer, or nothing.
            t: ∂φ/∂u of every layer.
            bends: pσ″(u) of every layer.
        """
        found = list(t) if squared else []
        if self.first_in_table:
            found.append(bends[0])
            if squared:
                mixed = bends[0] * squared[0]
                found[0] = torch.addcmul(t[0], mixed, squared[0], value=2)
                found.append(mixed)
        return found

    def sum_outer(self, columns: Sequence[Tensor], n: int) -> Tensor:
        """Q + Σ 2tcc′ over the squared units, with the first layer's Σ pσ″(a + 2sc)(a + 2sc)′ where it is tabled.

        Args:
            columns: those of :meth:`columns`, each ``(n, width)``.
            n: number of points.

        Returns:
            ``(n, features, features)``, symmetric.
        """
        triangles = self.quadratic.expand(n, -1)
        for column, table in zip(columns, self.tables, strict=True):
            triangles = torch.addmm(triangles, column, table)
        return triangles.index_select(1, self.places).view(-1, self.features, self.features)


@lru_cache(maxsize=64)
def triangle(features: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and columns of the upper triangle's entries, and where a symmetric matrix has each of its entries there."""
    with torch.inference_mode(False):  # what inference mode makes is of no use to autograd
        rows, columns = torch.triu_indices(features, features, device=device)
        places = torch.empty(features, features, dtype=torch.long, device=device)
        places[rows, columns] = places[columns, rows] = torch.arange(len(rows), device=device)
    return rows, columns, places.flatten()


class _Scratch(threading.local):
    """Memory that the sweeps of a thread share."""

    def __init__(self) -> None:
        self.kept: dict[torch.dtype, Tensor] = {}

    def take(self, shapes: Sequence[tuple[int, ...]], dtype: torch.dtype) -> list[Tensor]:
        """Tensors of these shapes with anything in them; the next call hands out the same memory."""
        sizes = [-(-math.prod(shape) // 16) * 16 for shape in shapes]
        if dtype not in self.kept or self.kept[dtype].numel() < sum(sizes):
            with torch.inference_mode(False):  # what inference mode makes cannot be written to outside of it
                self.kept[dtype] = torch.empty(sum(sizes), dtype=dtype, device="cpu")
        pieces = self.kept[dtype][: sum(sizes)].split(sizes)
        return [piece[: math.prod(shape)].view(shape) for piece, shape in zip(pieces, shapes, strict=True)]


_SCRATCH = _Scratch()


@torch.no_grad()
def sweep(network: Network, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """φ(x), ∇φ(x) and ∇²φ(x) on the CPU without autograd, by the formulas of :class:`~ot_lift.potentials.ICNN`.

    Args:
        network: any network; a layer's biases may also be one row for every point, ``(n, width)``.
        x: points ``(n, features)``.

    Returns:
        Shapes ``(n,)``, ``(n, features)`` and ``(n, features, features)``.
    """
    n, d = x.shape
    value, gradient, hessian = x.new_empty(n), x.new_empty(n, d), x.new_empty(n, d, d)
    constants = Constants.of(network)
    rows = max(16, _LAYER_NUMBERS // max(network.hidden_features))
    work: _Sweep | None = None
    for start in range(0, n, rows):
        block = slice(start, min(n, start + rows))
        size = block.stop - start
        if work is None or work.rows != size:
            work = _Sweep(network, constants, size, x.dtype)
        work(block, x[block], value[block], gradient[block], hessian[block])
    return value, gradient, hessian


class _Sweep:
    """A sweep of so many rows, which writes over the same buffers at every call."""

    def __init__(self, network: Network, constants: Constants, rows: int, dtype: torch.dtype) -> None:
        self.network, self.constants, self.rows = network, constants, rows
        widths, d = list(network.hidden_features), network.features
        self.sigma = [network.activation.in_sweep(float(network.sharpness(k))) for k in range(len(widths))]
        self.biases = [bias * sigma.into for bias, sigma in zip(network.biases, self.sigma, strict=True)]
        layer = [(rows, width) for width in widths]
        self.jacobian_rows = min(rows, max(16, _JACOBIAN_BYTES // (d * max(widths) * dtype.itemsize)))
        shapes = [*layer * 6, layer[0], *[(rows * max(widths),)] * 2, (rows, constants.quadratic.numel())]
        shapes += [(3, self.jacobian_rows * d * max(widths))]
        *layers, self.mixed, spare, ones, self.triangles, memory = _SCRATCH.take(shapes, dtype)
        ones.fill_(1.0)
        depth = len(widths)
        self.u, self.squared, self.slope, self.p, self.t, self.bends = (
            layers[k * depth : (k + 1) * depth] for k in range(6)
        )
        self.spare, self.ones = ([kind[: rows * width].view(rows, width) for width in widths] for kind in (spare, ones))
        # What each table is summed with, and the factor of it that the activation leaves out.
        self.tabled = [(t, 1.0) for t in self.t] if network.squared else []
        if constants.first_in_table:
            mixed = [self.mixed] if network.squared else []
            self.tabled += [(column, self.sigma[0].bend) for column in (self.bends[0], *mixed)]
        kinds = (self.squared if network.squared else [], self.slope, self.bends)
        self.blocks = [[layer[:, None].split(self.jacobian_rows) for layer in kind] for kind in kinds]
        self.jacobians = {
            size: _Jacobians(constants, self.sigma, memory, size)
            for size in {self.jacobian_rows, rows % self.jacobian_rows} - {0}
        }

    def __call__(self, block: slice, x: Tensor, value: Tensor, gradient: Tensor, hessian: Tensor) -> None:
        """Fill in the values, gradients and Hessians of a block of rows."""
        biases = [bias[block] if bias.ndim == 2 and len(bias) > 1 else bias for bias in self.biases]
        start, start_gradient = self.network.quadratic.value_gradient(x)
        self._forward(x, biases, start, value)
        self._backward(start_gradient, gradient)
        self._sum_outer(hessian)
        for i, target in enumerate(hessian.split(self.jacobian_rows)):
            self.jacobians[len(target)].add_bends(target, *([layer[i] for layer in kind] for kind in self.blocks))

    def _forward(self, x: Tensor, biases: list[Tensor], start: Tensor, value: Tensor) -> None:
        """σ(u), σ′(u) and Cx of every layer, and φ, of which ``start`` is the quadratic part.

        Buffers hold u in the units of the activation.
        """
        network, below = self.network, x
        for k, (into, bias, sigma) in enumerate(zip(network.inputs, biases, self.sigma, strict=True)):
            u = torch.addmm(bias, x, into.T, alpha=sigma.into, out=self.u[k])
            if network.squared:
                s = torch.mm(x, network.squares[k].T, out=self.squared[k])
                u.addcmul_(s, s, value=sigma.into)
            if k:
                u.addmm_(below, self.constants.weights[k - 1], alpha=self.sigma[k - 1].out * sigma.into)
            below = self.p[k]
            sigma.fill(u, below, self.slope[k], spare=self.spare[k], ones=self.ones[k])
        torch.addmv(start, below, network.readout[0], alpha=self.sigma[-1].out, out=value)

    def _backward(self, start: Tensor, gradient: Tensor) -> None:
        """The adjoints t = ∂φ/∂u and pσ″(u) of every layer, and ∇φ, of which ``start`` is the quadratic part."""
        network = self.network
        # Summed as (features, n): products whose result has few columns run at a fraction of the others' rate.
        total = start.T.contiguous()
        p = network.readout.expand(self.rows, -1)
        for k in reversed(range(len(self.slope))):
            t = torch.mul(p, self.slope[k], out=self.t[k])
            self.sigma[k].fill_bend(p, self.u[k], self.slope[k], self.bends[k])
            total.addmm_(self.constants.inputs[k], t.T)
            if network.squared:
                times = torch.mul(t, self.squared[k], out=self.u[k])
                total.addmm_(self.constants.squares[k], times.T)
            if k:
                p = torch.mm(t, network.weights[k - 1], out=self.p[k - 1])
        gradient.copy_(total.T)

    def _sum_outer(self, hessian: Tensor) -> None:
        """:meth:`Constants.sum_outer`, written over the adjoints of the first layer."""
        if self.network.squared and self.constants.first_in_table:
            mixed = torch.mul(self.bends[0], self.squared[0], out=self.mixed)
            self.t[0].addcmul_(mixed, self.squared[0], value=2 * self.sigma[0].bend)
        triangles = self.triangles.copy_(self.constants.quadratic)
        for (column, scale), table in zip(self.tabled, self.constants.tables, strict=True):
            triangles.addmm_(column, table, alpha=scale)
        torch.index_select(triangles, 1, self.constants.places, out=hessian.view(self.rows, -1))


class _Jacobians:
    """The Jacobians of so many rows, ``(rows, features, width)`` a layer: their recursion is one large product a layer.

    Two layers' are held at a time, and one product with a diagonal matrix.
    """

    def __init__(self, constants: Constants, sigma: list[InSweep], memory: Tensor, rows: int) -> None:
        self.constants, self.sigma = constants, sigma
        shapes = [(rows, *into.shape) for into in constants.inputs]
        self.jacobians = [memory[k % 2, : math.prod(shape)].view(shape) for k, shape in enumerate(shapes)]
        self.products = [memory[2, : math.prod(shape)].view(shape) for shape in shapes]
        # All directions of all rows as rows of one matrix.
        self.flat = [jacobian.flatten(0, 1) for jacobian in self.jacobians]
        self.flat_products = [product.flatten(0, 1) for product in self.products]

    def add_bends(self, target: Tensor, squared: list[Tensor], slope: list[Tensor], bends: list[Tensor]) -> None:
        """Add Σ J′diag(pσ″(u))J of the layers that are not in a table to the rows' Hessians.

        Args:
            target: ``(rows, features, features)``.
            squared: s = Cx of every layer, each ``(rows, 1, width)``, or nothing.
            slope: σ′(u), the same.
            bends: pσ″(u), the same, without the factor that the activation leaves out.
        """
        constants, last = self.constants, len(self.jacobians) - 1
        for k, (jacobian, product) in enumerate(zip(self.jacobians, self.products, strict=True)):
            if squared:
                torch.addcmul(constants.inputs[k], squared[k], constants.squares[k], out=jacobian)
            else:
                jacobian.copy_(constants.inputs[k])
            if k:
                self.flat[k].addmm_(self.flat_products[k - 1], constants.weights[k - 1])
            if k or not constants.first_in_table:
                torch.mul(jacobian, bends[k], out=product)
                target.baddbmm_(product, jacobian.mT, alpha=self.sigma[k].bend)
            if k < last:
                torch.mul(jacobian, slope[k], out=product)
