"""One side of a two-sided problem: opened data, its train, stopping and certificate parts, its moments."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ot_lift.batches import Batches, FiniteBatches, StreamBatches, Transform
from ot_lift.data import Rows, as_weight, open_rows, split_indices, weighted_moments
from ot_lift.errors import DataError

HELD_OUT_ROWS = 4096  # at most, for stopping and again for the certificate
_MOMENT_ROWS = 1 << 17  # drawn from a stream for its moments
_FEWEST_ROWS = 6  # two to train on, two to stop by, two for the certificate


@dataclass(frozen=True)
class Side:
    """Source or target of a fit.

    Attributes:
        rows: the opened data.
        train: positions of the training rows; None for a stream.
        stop: held-out points that decide when to stop, data units ``(s, features)``, float64.
        stop_weight: ``(s,)`` or None.
        certificate: held-out points that nothing else sees ``(c, features)``, float64.
        mean: of the training part, float64 ``(features,)``.
        covariance: float64 ``(features, features)``.
        weight: of the training rows, or None.
    """

    rows: Rows
    train: Tensor | None
    stop: Tensor
    stop_weight: Tensor | None
    certificate: Tensor
    mean: Tensor
    covariance: Tensor
    weight: Tensor | None

    @classmethod
    def open(cls, data: Any, *, name: str, features: int | None, weight: Any, generator: torch.Generator) -> Side:
        """Validate and split. A stream's held-out points are drawn first; finite rows are split at random.

        Raises:
            DataError: if the data is not what :func:`ot_lift.data.open_rows` takes, or weights go with a stream.
        """
        rows = open_rows(data, name=name, features=features, minimum_rows=2)
        if rows.size is None:
            if weight is not None:
                raise DataError(f"expected no weights with the stream {name}; draw its points by their weight")
            stop, certificate, sample = (
                rows.draw(count, generator).double() for count in (HELD_OUT_ROWS, HELD_OUT_ROWS, _MOMENT_ROWS)
            )
            return cls(rows, None, stop, None, certificate, *weighted_moments(sample), None)
        if rows.size < _FEWEST_ROWS:
            raise DataError(
                f"expected {name} with at least {_FEWEST_ROWS} rows (two each to train on, to stop by and to certify), "
                f"got {rows.size}"
            )
        held_out = min(HELD_OUT_ROWS, max(2, rows.size // 10)) / rows.size
        train, stop_index, certificate_index = split_indices(
            rows.size, (1 - 2 * held_out, held_out, held_out), generator
        )
        share = None if weight is None else as_weight(weight, name=f"{name} weight", size=rows.size)
        if share is not None:  # the certificate's statistics are unweighted: draw its points by weight instead
            chosen = torch.multinomial(share[certificate_index], len(certificate_index), True, generator=generator)
            certificate_index = certificate_index[chosen]
        mean, covariance = weighted_moments(rows, share, index=train)
        return cls(
            rows,
            train,
            rows.take(stop_index).double(),
            None if share is None else share[stop_index],
            rows.take(certificate_index).double(),
            mean,
            covariance,
            None if share is None else share[train],
        )

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """At most ``count`` training points by weight, data units, float64."""
        if self.train is None:
            return self.rows.draw(count, generator).double()
        if self.weight is not None:
            chosen = torch.multinomial(self.weight, count, True, generator=generator)
        else:
            chosen = torch.randperm(len(self.train), generator=generator)[:count]
        return self.rows.take(self.train[chosen]).double()

    def batches(self, transform: Transform, *, batch_size: int, generator: torch.Generator) -> Batches:
        """Mini-batches of the training part."""
        if self.train is None:
            return StreamBatches(self.rows, transform, batch_size=batch_size, generator=generator)
        return FiniteBatches(
            self.rows, self.train, transform, batch_size=batch_size, generator=generator, weight=self.weight
        )

    def fingerprint(self) -> str:
        """Digest of size, moments and held-out points: tells one dataset from another when a fit is resumed."""
        digest = hashlib.sha256(repr((self.rows.size, self.rows.features)).encode())
        for part in (self.mean, self.covariance, self.stop):
            digest.update(part.contiguous().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Reach:
    """How far a dataset extends: an ellipsoid of its covariance that holds all points looked at.

    Attributes:
        centre: ``(features,)``.
        whitening: ``(features, features)``.
        radius: largest whitened distance from the centre seen.
    """

    centre: Tensor
    whitening: Tensor
    radius: float

    @classmethod
    def of(cls, mean: Tensor, covariance: Tensor, points: Tensor) -> Reach:
        """Reach of ``points`` ``(n, features)`` in the metric of a covariance; flat directions get a floor."""
        values, vectors = torch.linalg.eigh(covariance.double())
        floor = 1e-6 * float(values[-1]) if float(values[-1]) > 0 else 1.0
        whitening = (vectors / values.clamp_min(floor).sqrt()) @ vectors.T
        return cls(mean, whitening, float(((points.double() - mean) @ whitening).norm(dim=1).max()))

    def beyond(self, points: Tensor, factor: float = 2.0) -> int:
        """How many points lie more than ``factor`` times as far out as any point seen."""
        distance = ((points.double() - self.centre) @ self.whitening).norm(dim=1)
        return int((distance > factor * self.radius).sum())
