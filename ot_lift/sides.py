"""One side of a two-sided problem: opened data, its train, stopping and certificate parts, its moments."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ot_lift.batches import Batches, FiniteBatches, StreamBatches, Transform
from ot_lift.data import as_weight
from ot_lift.errors import DataError
from ot_lift.rows import Rows, open_rows
from ot_lift.splits import split_indices
from ot_lift.standardizer import weighted_moments

HELD_OUT_ROWS = 4096  # at most, for stopping and again for the certificate
_MOMENT_ROWS = 1 << 17  # drawn from a stream for its moments
# With fewer rows a column the covariance is shrunk (Ledoit & Wolf 2004): of 12 points in 8 dimensions the sample
# covariance gives a start that is worse than no map at all.
_SHRINK_BELOW = 20
_REACH_ROWS = 1 << 16  # in memory at a time while the extent of the data is measured
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
        row_weight: of all rows ``(n,)``, or None.
    """

    rows: Rows
    train: Tensor | None
    stop: Tensor
    stop_weight: Tensor | None
    certificate: Tensor
    mean: Tensor
    covariance: Tensor
    row_weight: Tensor | None

    @classmethod
    def open(cls, data: Any, *, name: str, features: int | None, weight: Any, generator: torch.Generator) -> Side:
        """Validate and split. A stream's held-out points are drawn first; finite rows are split at random.

        Raises:
            DataError: if the data is not what :func:`ot_lift.rows.open_rows` takes, or weights go with a stream.
        """
        if isinstance(data, Tensor):  # moments, splits and held-out points live on the CPU, in float64
            data = data.cpu()
        rows = open_rows(data, name=name, features=features, minimum_rows=2)
        if rows.size is None:
            if weight is not None:
                raise DataError(f"expected no weights with the stream {name}; draw its points by their weight")
            stop, certificate, sample = (
                rows.draw(count, generator).double().cpu() for count in (HELD_OUT_ROWS, HELD_OUT_ROWS, _MOMENT_ROWS)
            )
            return cls(rows, None, stop, None, certificate, *weighted_moments(sample), None)
        share = None if weight is None else as_weight(weight, name=f"{name} weight", size=rows.size)
        usable = torch.arange(rows.size) if share is None else share.nonzero().squeeze(1)
        size = len(usable)
        if size < _FEWEST_ROWS:
            raise DataError(
                f"expected {name} with at least {_FEWEST_ROWS} rows{'' if share is None else ' of positive weight'} "
                f"(two each to train on, to stop by and to certify), got {size}"
            )
        held_out = min(HELD_OUT_ROWS, max(2, size // 10)) / size
        fractions = (1 - 2 * held_out, held_out, held_out)
        train, stop_index, certificate_index = (usable[part] for part in split_indices(size, fractions, generator))
        if share is not None:
            certificate_index = _keep_by_weight(certificate_index, share[certificate_index], generator)
        mean, covariance = weighted_moments(rows, share, index=train)
        if share is None and len(train) < _SHRINK_BELOW * rows.features:
            from sklearn.covariance import ledoit_wolf  # whose import would be a quarter of the library's

            covariance = torch.from_numpy(
                ledoit_wolf((rows.take(train).double() - mean).numpy(), assume_centered=True)[0]
            )
        return cls(
            rows,
            train,
            rows.take(stop_index).double(),
            None if share is None else share[stop_index],
            rows.take(certificate_index).double(),
            mean,
            covariance,
            share,
        )

    @property
    def weight(self) -> Tensor | None:
        """Of the training rows, in their order, or None."""
        return None if self.row_weight is None else self.row_weight[self.train]

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean ``(features,)`` and covariance ``(features, features)`` of all rows, float64; of a stream, those it has.

        Held-out rows count too, so what is made of these moments cannot be judged by them.
        """
        if self.train is None:
            return self.mean, self.covariance
        used = None if self.row_weight is None else self.row_weight.nonzero().squeeze(1)
        return weighted_moments(self.rows, self.row_weight, index=used)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """At most ``count`` training points by weight, data units, float64."""
        if self.train is None:
            return self.rows.draw(count, generator).double().cpu()
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

    def reach(self) -> Reach:
        """How far the data extends: over every finite row that was used, or a stream's held-out points."""
        reach = Reach.of(self.mean, self.covariance, torch.cat([self.stop, self.certificate]))
        for index in () if self.train is None else self.train.split(_REACH_ROWS):
            reach = reach.including(self.rows.take(index).double())
        return reach

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
        return cls(mean, whitening, 0.0).including(points)

    def including(self, points: Tensor) -> Reach:
        """The same, extended to hold ``points`` ``(n, features)`` too."""
        return replace(self, radius=max(self.radius, float(self._distance(points).max())))

    def beyond(self, points: Tensor, factor: float = 2.0) -> int:
        """How many points lie more than ``factor`` times as far out as any point seen."""
        return int((self._distance(points) > factor * self.radius).sum())

    def _distance(self, points: Tensor) -> Tensor:
        return ((points.double() - self.centre) @ self.whitening).norm(dim=1)


def _keep_by_weight(index: Tensor, weight: Tensor, generator: torch.Generator) -> Tensor:
    """Some of ``index`` as an unweighted sample: by rejection no point comes twice, so its statistics are honest."""
    accepted = torch.rand(len(index), dtype=weight.dtype, generator=generator) * weight.max() < weight
    if int(accepted.sum()) >= 2:
        return index[accepted]
    return index[torch.multinomial(weight, 2, False, generator=generator)]
