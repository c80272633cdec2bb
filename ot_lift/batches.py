"""Standardised mini-batches of one side of a problem: epochs over finite rows, a rotating pool for streams."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from ot_lift.rows import Rows

# Finite data up to this size is standardised once and kept; beyond, rows are gathered for every batch.
_RESIDENT_BYTES = 1 << 30
# A stream is sampled through a pool: at the end of an epoch over it, one block of it is drawn afresh. A point is so
# visited `_POOL_BLOCKS` times, and what was solved for it once (a conjugate's argmax) starts the next solve.
_POOL_BATCHES, _POOL_BLOCKS = 64, 8

Transform = Callable[[Tensor], Tensor]


class Batches(ABC):
    """Endless mini-batches ``(index, points)``; ``index`` names slots that keep their meaning between visits.

    Attributes:
        size: number of slots.
        renewed: slots whose point was replaced at the last :meth:`next`, or None.
    """

    size: int
    renewed: slice | None = None

    @abstractmethod
    def next(self) -> tuple[Tensor, Tensor]:
        """Slots ``(b,)`` and their standardised points ``(b, features)``."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Position, as tensors."""

    @abstractmethod
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore :meth:`state`."""


class _Epochs:
    """Random permutations of ``size`` slots in batches; remembers how to redo the running epoch."""

    def __init__(self, size: int, batch_size: int, generator: torch.Generator) -> None:
        self.size, self.batch_size, self.generator = size, min(batch_size, size), generator
        self.position = size
        self.start = generator.get_state()
        self.order = torch.empty(0, dtype=torch.int64)

    def over(self) -> bool:
        return self.position + self.batch_size > self.size

    def begin(self) -> None:
        self.start = self.generator.get_state()
        self.order = torch.randperm(self.size, generator=self.generator)
        self.position = 0

    def next(self) -> Tensor:
        index = self.order[self.position : self.position + self.batch_size]
        self.position += self.batch_size
        return index

    def state(self) -> dict[str, Tensor]:
        return {
            "start": self.start,
            "generator": self.generator.get_state(),
            "position": torch.tensor(self.position if len(self.order) else -1),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        position = int(state["position"])
        self.order, self.position = torch.empty(0, dtype=torch.int64), self.size
        if position >= 0:
            self.generator.set_state(state["start"])
            self.begin()
            self.position = position
        self.generator.set_state(state["generator"])


class FiniteBatches(Batches):
    """Batches of finite rows, uniformly without replacement within an epoch, or by weight with replacement.

    Args:
        rows: finite data.
        index: positions of the rows to use.
        transform: data units, float64 → standardised coordinates of the training dtype and device.
        batch_size: rows a batch; all rows if there are fewer.
        generator: source of randomness.
        weight: non-negative, one a row of ``index``.
    """

    def __init__(
        self,
        rows: Rows,
        index: Tensor,
        transform: Transform,
        *,
        batch_size: int,
        generator: torch.Generator,
        weight: Tensor | None = None,
    ) -> None:
        self.size, self.batch_size = len(index), min(batch_size, len(index))
        self._rows, self._index, self._transform = rows, index, transform
        resident = len(index) * rows.features * 8 <= _RESIDENT_BYTES
        self._points = transform(rows.take(index)) if resident else None
        self._epochs = _Epochs(self.size, batch_size, generator)
        self._cumulative = None if weight is None else weight.double().cumsum(0)

    def next(self) -> tuple[Tensor, Tensor]:
        if self._cumulative is not None:
            uniform = torch.rand(self.batch_size, dtype=torch.float64, generator=self._epochs.generator)
            slots = torch.searchsorted(self._cumulative, uniform * self._cumulative[-1], right=True)
            slots = slots.clamp_max(self.size - 1)
        else:
            if self._epochs.over():
                self._epochs.begin()
            slots = self._epochs.next()
        if self._points is not None:
            return slots, self._points[slots.to(self._points.device)]
        return slots, self._transform(self._rows.take(self._index[slots]))

    def state(self) -> dict[str, Tensor]:
        return self._epochs.state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._epochs.load_state(state)


class StreamBatches(Batches):
    """Batches of an endless stream through a rotating pool of its points.

    Args:
        rows: a stream.
        transform: data units, float64 → standardised coordinates of the training dtype and device.
        batch_size: rows a batch.
        generator: source of randomness, also handed to a sampler.
    """

    def __init__(self, rows: Rows, transform: Transform, *, batch_size: int, generator: torch.Generator) -> None:
        self._rows, self._transform = rows, transform
        self.size = _POOL_BATCHES * batch_size
        self._block = 0
        self._pool = transform(rows.draw(self.size, generator))
        self._epochs = _Epochs(self.size, batch_size, generator)

    def next(self) -> tuple[Tensor, Tensor]:
        self.renewed = None
        if self._epochs.over():
            if len(self._epochs.order):
                self._renew()
            self._epochs.begin()
        slots = self._epochs.next()
        return slots, self._pool[slots.to(self._pool.device)]

    def _renew(self) -> None:
        length = self.size // _POOL_BLOCKS
        self.renewed = slice(self._block * length, (self._block + 1) * length)
        self._pool[self.renewed] = self._transform(self._rows.draw(length, self._epochs.generator))
        self._block = (self._block + 1) % _POOL_BLOCKS

    def state(self) -> dict[str, Tensor]:
        return {**self._epochs.state(), "pool": self._pool.clone(), "block": torch.tensor(self._block)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self._pool = state["pool"].to(self._pool, copy=True)
        self._block = int(state["block"])
        self._epochs.load_state(state)
