"""Value, gradient and Hessian of an input-convex network at many points, without autograd, in one fast sweep."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from ot_lift.hessians import Constants, Network

# A sweep takes its first-order part in blocks of so many numbers a layer, its Jacobians in blocks of about so many
# bytes. Their buffers are kept from sweep to sweep: fresh pages from the system cost up to a third of a sweep.
_LAYER_NUMBERS, _JACOBIAN_BYTES = 1 << 18, 1 << 20

_KEPT = 16  # layouts of buffers that a thread keeps: making one costs as much as a few dozen points


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
    rows = max(16, _LAYER_NUMBERS // max(network.hidden_features))
    of_network = _Sweep(network)
    for start in range(0, n, rows):
        block = slice(start, min(n, start + rows))
        of_network(block, x[block], value[block], gradient[block], hessian[block])
    return value, gradient, hessian


class _Sweep:
    """Sweeps of one network; each writes over the buffers of the one before."""

    def __init__(self, network: Network) -> None:
        self.widths, self.squared = network.hidden_features, network.squared
        self.constants, self.quadratic = Constants.of(network), network.quadratic
        self.matrix = self.quadratic.matrix()
        self.inputs, self.squares, self.weights = list(network.inputs), list(network.squares), list(network.weights)
        self.readout = network.readout
        self.sigma = [network.activation.in_sweep(float(network.sharpness(k))) for k in range(len(self.widths))]
        self.biases = [bias * sigma.into for bias, sigma in zip(network.biases, self.sigma, strict=True)]

    def __call__(self, block: slice, x: Tensor, value: Tensor, gradient: Tensor, hessian: Tensor) -> None:
        """Fill in the values, gradients and Hessians of a block of rows."""
        biases = [bias[block] if bias.ndim == 2 and len(bias) > 1 else bias for bias in self.biases]
        n, d = x.shape
        buffers = _MEMORIES.of(x.dtype).buffers(self.widths, d, n)
        # Gradients are summed as (features, n): products whose result has few columns run at a fraction of the rate.
        sideways = x.T.contiguous()
        total = torch.mm(self.matrix, sideways)
        start = torch.addmv(self.quadratic.offset, x, self.quadratic.linear)
        start.add_((sideways * total).sum(0), alpha=0.5)
        total.add_(self.quadratic.linear[:, None])
        self._forward(buffers, x, biases, start, value)
        self._backward(buffers, total)
        gradient.copy_(total.T)
        self._sum_outer(buffers, hessian)
        for i, target in enumerate(hessian.split(buffers.jacobian_rows)):
            self._add_bends(buffers, i, target)

    def _forward(self, buffers: _Buffers, x: Tensor, biases: list[Tensor], start: Tensor, value: Tensor) -> None:
        """σ(u), σ′(u) and Cx of every layer, and φ, of which ``start`` is the quadratic part.

        Buffers hold u in the units of the activation.
        """
        below = x
        for k, (into, bias, sigma) in enumerate(zip(self.inputs, biases, self.sigma, strict=True)):
            u = torch.addmm(bias, x, into.T, alpha=sigma.into, out=buffers.u[k])
            if self.squared:
                s = torch.mm(x, self.squares[k].T, out=buffers.squared[k])
                u.addcmul_(s, s, value=sigma.into)
            if k:
                u.addmm_(below, self.constants.weights[k - 1], alpha=self.sigma[k - 1].out * sigma.into)
            below = buffers.p[k]
            sigma.fill(u, below, buffers.slope[k], spare=buffers.spare[k], ones=buffers.ones[k])
        torch.addmv(start, below, self.readout[0], alpha=self.sigma[-1].out, out=value)

    def _backward(self, buffers: _Buffers, total: Tensor) -> None:
        """The adjoints t = ∂φ/∂u and pσ″(u) of every layer; adds what is not quadratic to the gradients ``(d, n)``."""
        p = self.readout.expand(total.shape[1], -1)
        for k in reversed(range(len(self.widths))):
            t = torch.mul(p, buffers.slope[k], out=buffers.t[k])
            self.sigma[k].fill_bend(p, buffers.u[k], buffers.slope[k], buffers.bends[k])
            total.addmm_(self.constants.inputs[k], t.T)
            if self.squared:
                times = torch.mul(t, buffers.squared[k], out=buffers.u[k])
                total.addmm_(self.constants.squares[k], times.T)
            if k:
                p = torch.mm(t, self.weights[k - 1], out=buffers.p[k - 1])

    def _sum_outer(self, buffers: _Buffers, hessian: Tensor) -> None:
        """:meth:`Constants.sum_outer`, written over the adjoints of the first layer."""
        # What each table is summed with, and the factor of it that the activation leaves out.
        tabled = [(t, 1.0) for t in buffers.t] if self.squared else []
        if self.constants.first_in_table:
            bend = self.sigma[0].bend
            tabled.append((buffers.bends[0], bend))
            if self.squared:
                mixed = torch.mul(buffers.bends[0], buffers.squared[0], out=buffers.spare[0])
                buffers.t[0].addcmul_(mixed, buffers.squared[0], value=2 * bend)
                tabled.append((mixed, bend))
        triangles = buffers.triangles.copy_(self.constants.quadratic)
        for (column, scale), table in zip(tabled, self.constants.tables, strict=True):
            triangles.addmm_(column, table, alpha=scale)
        torch.index_select(triangles, 1, self.constants.places, out=hessian.view(len(hessian), -1))

    def _add_bends(self, buffers: _Buffers, i: int, target: Tensor) -> None:
        """Add Σ J′diag(pσ″(u))J of the layers that are not in a table to the Hessians of the i-th few rows.

        The Jacobians' recursion is one large product a layer.
        """
        constants, layers = self.constants, buffers.jacobians[len(target)]
        for k, layer in enumerate(layers):
            jacobian, product = layer.jacobian, layer.product
            if self.squared:
                torch.addcmul(constants.inputs[k], buffers.in_blocks.squared[k][i], constants.squares[k], out=jacobian)
            else:
                jacobian.copy_(constants.inputs[k])
            if k:
                layer.flat.addmm_(layers[k - 1].flat_product, constants.weights[k - 1])
            if k or not constants.first_in_table:
                torch.mul(jacobian, buffers.in_blocks.bends[k][i], out=product)
                target.baddbmm_(product, jacobian.mT, alpha=self.sigma[k].bend)
            if k + 1 < len(layers):
                torch.mul(jacobian, buffers.in_blocks.slope[k][i], out=product)


class _Blocks:
    """A sweep's figures of every layer ``(rows, 1, width)``, in the blocks that Jacobians are formed in."""

    def __init__(self, buffers: _Buffers) -> None:
        self.squared, self.slope, self.bends = (
            [layer[:, None].split(buffers.jacobian_rows) for layer in kind]
            for kind in (buffers.squared, buffers.slope, buffers.bends)
        )


class _Jacobian:
    """One layer's Jacobians ``(rows, features, width)`` and their products with diagonal matrices.

    Each is there once more with all directions of all rows as rows of one matrix.
    """

    def __init__(self, jacobian: Tensor, product: Tensor) -> None:
        self.jacobian, self.product = jacobian, product
        self.flat, self.flat_product = jacobian.flatten(0, 1), product.flatten(0, 1)


class _Buffers:
    """What a sweep of so many rows writes to.

    Every list is one of layers, each ``(rows, width)``; ``jacobians`` has them by their number of rows.
    """

    def __init__(self, widths: tuple[int, ...], features: int, rows: int, jacobian_rows: int, memory: _Memory) -> None:
        depth, widest, d = len(widths), max(widths), features
        self.jacobian_rows = jacobian_rows
        shapes = [(rows, width) for width in widths] * 6 + [(rows * widest,), (rows, d * (d + 1) // 2)]
        *layers, spare, self.triangles, jacobians = memory.take([*shapes, (3, jacobian_rows * d * widest)])
        self.u, self.squared, self.slope, self.p, self.t, self.bends = (
            layers[k * depth : (k + 1) * depth] for k in range(6)
        )
        self.spare, self.ones = (
            [kind[: rows * width].view(rows, width) for width in widths]
            for kind in (spare, memory.take_ones(rows * widest))
        )
        self.in_blocks = _Blocks(self)
        self.jacobians: dict[int, list[_Jacobian]] = {}
        for size in {jacobian_rows, rows % jacobian_rows} - {0}:
            # Two layers' are held at a time, and one product.
            pieces = [
                [jacobians[place, : size * d * width].view(size, d, width) for place in (k % 2, 2)]
                for k, width in enumerate(widths)
            ]
            self.jacobians[size] = [_Jacobian(*piece) for piece in pieces]


class _Memory:
    """Memory of one thread for sweeps in one dtype, and layouts of it."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.memory, self.ones = torch.empty(0, dtype=dtype, device="cpu"), torch.empty(0, dtype=dtype, device="cpu")
        self.layouts: dict[tuple[tuple[int, ...], int, int, int], _Buffers] = {}

    def buffers(self, widths: tuple[int, ...], features: int, rows: int) -> _Buffers:
        """Buffers with anything in them, all in the same memory as those handed out before."""
        size = self.memory.itemsize * features * max(widths)
        layout = widths, features, rows, min(rows, max(16, _JACOBIAN_BYTES // size))
        if layout not in self.layouts:
            if len(self.layouts) >= _KEPT:
                self.layouts.clear()
            with torch.inference_mode(False):  # what inference mode makes cannot be written to outside of it
                self.layouts[layout] = _Buffers(*layout, self)
        return self.layouts[layout]

    def take(self, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """Tensors of these shapes; the next call hands out the same memory."""
        sizes = [-(-math.prod(shape) // 16) * 16 for shape in shapes]
        if self.memory.numel() < sum(sizes):
            self.layouts.clear()  # they would keep the smaller memory
            self.memory = self.memory.new_empty(sum(sizes))
        pieces = self.memory[: sum(sizes)].split(sizes)
        return [piece[: math.prod(shape)].view(shape) for piece, shape in zip(pieces, shapes, strict=True)]

    def take_ones(self, count: int) -> Tensor:
        """So many ones, not to be written to."""
        if self.ones.numel() < count:
            self.layouts.clear()
            self.ones = self.ones.new_ones(count)
        return self.ones[:count]


class _Memories(threading.local):
    """The memory of a thread."""

    def __init__(self) -> None:
        self.kinds: dict[torch.dtype, _Memory] = {}

    def of(self, dtype: torch.dtype) -> _Memory:
        """In that dtype."""
        if dtype not in self.kinds:
            with torch.inference_mode(False):
                self.kinds[dtype] = _Memory(dtype)
        return self.kinds[dtype]


_MEMORIES = _Memories()
