"""What every Hessian of an input-convex network is formed from: its transposed weights and tables of outer products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ot_lift.activations import Activation

# Up to this dimension the first layer's Hessian, three numbers a unit, is one product with a table of outer products.
_TABLE_UP_TO = 16

_BLOCK_BYTES = 1 << 27  # of Hessians at a time: memory stays flat however many points there are


def block_rows(x: Tensor) -> int:
    """How many Hessians at points of such a width and dtype are formed at a time: those of 128 MiB, at least one.

    Args:
        x: points ``(n, d)``.

    Example:
        >>> block_rows(torch.zeros(1, 64, dtype=torch.float64)), block_rows(torch.zeros(1, 1024, dtype=torch.float64))
        (4096, 16)
    """
    return max(1, _BLOCK_BYTES // (x.shape[1] ** 2 * x.element_size()))


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
            products = torch.cat(left, 1).index_select(0, rows) * torch.cat(right, 1).index_select(0, columns)
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
