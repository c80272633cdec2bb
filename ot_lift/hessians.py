"""Value, gradient and Hessian of an input-convex network at many points, without autograd, in one fast sweep."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ot_lift.activations import Activation

# A sweep takes its first-order part in blocks of so many numbers a layer, its Jacobians in blocks of about so many
# bytes. Their buffers are kept from sweep to sweep: fresh pages from the system cost up to a third of a sweep.
_LAYER_NUMBERS, _JACOBIAN_BYTES = 1 << 17, 1 << 20

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
    """What a Hessian sweep needs of a network's parameters: Wᵀ, Aᵀ, 2Cᵀ, and a table of outer products.

    Of the symmetric matrices Q and the table's rows only the upper triangle is kept; ``places`` spreads it out again.
    """

    features: int
    quadratic: Tensor
    weights: list[Tensor]
    inputs: list[Tensor]
    squares: list[Tensor]
    table: Tensor
    places: Tensor
    first_in_table: bool

    @classmethod
    def of(cls, network: Network) -> Constants:
        """The constants of a network, differentiable in its parameters."""
        d, squares = network.features, list(network.squares)
        first_in_table = d <= _TABLE_UP_TO
        rows, columns = torch.triu_indices(d, d, device=network.readout.device)
        places = torch.empty(d, d, dtype=torch.long, device=rows.device)
        places[rows, columns] = places[columns, rows] = torch.arange(len(rows), device=rows.device)

        def outer(left: Tensor, right: Tensor) -> Tensor:
            return left[:, rows] * right[:, columns]

        table = [outer(c, c) for c in squares]
        if first_in_table:
            a = network.inputs[0]
            table.append(0.5 * outer(a, a))
            table.extend(outer(a, c) + outer(c, a) for c in squares[:1])
        return cls(
            d,
            network.quadratic.matrix()[rows, columns],
            [w.T for w in network.weights],
            [a.T.contiguous() for a in network.inputs],
            [2 * c.T.contiguous() for c in squares],
            2 * torch.cat([network.readout.new_empty(0, len(rows)), *table]),
            places.flatten(),
            first_in_table,
        )

    def columns(self, squared: Sequence[Tensor], t: Sequence[Tensor], bends: Sequence[Tensor]) -> list[Tensor]:
        """What the table's rows are summed with, side by side.

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

    def sum_outer(self, columns: Tensor, out: Tensor | None = None) -> Tensor:
        """Q + Σ 2tcc′ over the squared units, with the first layer's Σ pσ″(a + 2sc)(a + 2sc)′ where it is tabled.

        Args:
            columns: those of :meth:`columns` as one, ``(n, rows of the table)``.
            out: where to write the matrices.

        Returns:
            ``(n, features, features)``, symmetric.
        """
        triangles = torch.addmm(self.quadratic, columns, self.table)
        if out is None:
            return triangles.index_select(1, self.places).view(-1, self.features, self.features)
        torch.index_select(triangles, 1, self.places, out=out.view(len(out), -1))
        return out


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
        network: any network.
        x: points ``(n, features)``.

    Returns:
        Shapes ``(n,)``, ``(n, features)`` and ``(n, features, features)``.
    """
    n, d = x.shape
    value, gradient, hessian = x.new_empty(n), x.new_empty(n, d), x.new_empty(n, d, d)
    work = _Sweep(network, x)
    for start in range(0, n, work.rows):
        block = slice(start, start + work.rows)
        work(x[block], value[block], gradient[block], hessian[block])
    return value, gradient, hessian


class _Sweep:
    """A sweep's constants and buffers. Blocks of rows write over the same buffers, one after the other."""

    def __init__(self, network: Network, x: Tensor) -> None:
        self.network, self.constants = network, Constants.of(network)
        self.beta = [float(network.sharpness(k)) for k in range(len(network.hidden_features))]
        widths, squared, d = list(network.hidden_features), network.squared, network.features
        self.rows = max(16, min(len(x), _LAYER_NUMBERS // max(widths)))
        size = d * max(widths)
        jacobian_rows = max(16, _JACOBIAN_BYTES // (size * x.element_size()))
        columns = widths * squared + widths[:1] * ((1 + squared) * self.constants.first_in_table)
        shapes = [(self.rows, width) for width in widths * 4]
        shapes += [(self.rows, sum(columns)), (3, min(jacobian_rows, self.rows) * size)]
        *layers, self.columns, self.jacobians = _SCRATCH.take(shapes, x.dtype)
        depth = len(widths)
        self.u, self.squared, self.p, self.t = (layers[k * depth : (k + 1) * depth] for k in range(4))
        self.jacobian_rows = jacobian_rows
        # Side by side as the table has them: t of every layer if there are squared units, then what is mixed from them.
        self.tabled = list(self.columns.split(columns, 1)) if columns else []
        if squared:
            self.t = self.tabled[:depth]

    def __call__(self, x: Tensor, value: Tensor, gradient: Tensor, hessian: Tensor) -> None:
        """Fill in the values, gradients and Hessians of a block of rows."""
        slope = self._forward(x, value)
        bends = self._backward(x, slope, gradient)
        self.constants.sum_outer(self.columns[: len(x)], out=hessian)
        squared = [layer[: len(x)] for layer in self.squared] if self.network.squared else []
        kinds = [[layer[:, None].split(self.jacobian_rows) for layer in kind] for kind in (slope, squared, bends)]
        for i, target in enumerate(hessian.split(self.jacobian_rows)):
            self._add_bends(target, *([layer[i] for layer in kind] for kind in kinds))

    def _forward(self, x: Tensor, value: Tensor) -> list[Tensor]:
        """σ′(u) of every layer; u and Cx stay in their buffers."""
        network, n = self.network, len(x)
        slope: list[Tensor] = []
        below = x
        for k, (into, bias) in enumerate(zip(network.inputs, network.biases, strict=True)):
            u = torch.addmm(bias, x, into.T, out=self.u[k][:n])
            if network.squared:
                s = torch.mm(x, network.squares[k].T, out=self.squared[k][:n])
                u.addcmul_(s, s)
            if k:
                u.addmm_(below, self.constants.weights[k - 1])
            slope.append(network.activation.slope(u, self.beta[k]))
            below = network.activation.value(u, self.beta[k])
        torch.addmv(network.quadratic(x), below, network.readout[0], out=value)
        return slope

    def _backward(self, x: Tensor, slope: list[Tensor], gradient: Tensor) -> list[Tensor]:
        """pσ″(u) of every layer; the table's columns are filled in."""
        network, n = self.network, len(x)
        # Summed as (features, n): products whose result has few columns run at a fraction of the others' rate.
        total = network.quadratic.gradient(x).T.contiguous()
        bends: list[Tensor] = []
        p = network.readout.expand(n, -1)
        for k in reversed(range(len(slope))):
            t = torch.mul(p, slope[k], out=self.t[k][:n])
            bends.insert(0, network.activation.curvature(self.u[k][:n], slope[k], self.beta[k]).mul_(p))
            total.addmm_(network.inputs[k].T, t.T)
            if network.squared:
                times = torch.mul(t, self.squared[k][:n], out=self.u[k][:n])
                total.addmm_(network.squares[k].T, times.T, alpha=2)
            if k:
                p = torch.mm(t, network.weights[k - 1], out=self.p[k - 1][:n])
        gradient.copy_(total.T)
        if self.constants.first_in_table:
            if network.squared:
                s = self.squared[0][:n]
                mixed = torch.mul(bends[0], s, out=self.tabled[-1][:n])
                self.t[0][:n].addcmul_(mixed, s, value=2)
            self.tabled[len(slope) * network.squared][:n] = bends[0]
        return bends

    def _add_bends(self, target: Tensor, slope: list[Tensor], squared: list[Tensor], bends: list[Tensor]) -> None:
        """Add Σ J′diag(pσ″(u))J of the layers that are not in the table to a block of Hessians."""

        def buffer(index: int, width: int) -> Tensor:
            shape = len(target), self.constants.features, width
            return self.jacobians[index, : math.prod(shape)].view(shape)

        # Jacobians are (rows, features, width): in this layout their recursion is one large product a layer.
        jacobian = target
        for k, width in enumerate(self.network.hidden_features):
            below, jacobian = jacobian, buffer(k % 2, width)
            if squared:
                torch.addcmul(self.constants.inputs[k], squared[k], self.constants.squares[k], out=jacobian)
            else:
                jacobian.copy_(self.constants.inputs[k])
            if k:
                below = torch.mul(below, slope[k - 1], out=buffer(2, below.shape[2]))
                jacobian.flatten(0, 1).addmm_(below.flatten(0, 1), self.constants.weights[k - 1])
            if k or not self.constants.first_in_table:
                bent = torch.mul(jacobian, bends[k], out=buffer(2, width))
                target.baddbmm_(bent, jacobian.mT)
