"""Moments of data, and the coordinates in which both sides of a map are standardised."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ot_lift.errors import DataError
from ot_lift.rows import Rows, TensorRows


def weighted_moments(
    rows: Rows | Tensor,
    weight: Tensor | None = None,
    *,
    index: Tensor | None = None,
    chunk_rows: int = 65536,
) -> tuple[Tensor, Tensor]:
    """Mean and covariance in float64, read in chunks that are merged stably.

    Args:
        rows: Finite rows or a tensor (n, features).
        weight: Non-negative weights (n,); None weighs all rows equally.
        index: Positions of the rows to use; None uses all.
        chunk_rows: Rows that are in memory at a time.

    Returns:
        mean (features,) and covariance (features, features), normalised by the sum of the weights (not
        by n − 1), both float64.

    Raises:
        DataError: The data is a stream, has no weight, or is too large for float64 moments.

    References:
        Chan, Golub & LeVeque (1983), Algorithms for computing the sample variance, Am. Stat. 37.

    Example:
        >>> mean, covariance = weighted_moments(torch.tensor([[0.0], [2.0]]))
        >>> mean.item(), covariance.item()
        (1.0, 1.0)
    """
    table = TensorRows(rows, "rows") if isinstance(rows, Tensor) else rows
    if table.size is None:
        raise DataError(f"expected finite rows, got the stream {table.name}: draw points from it first")
    size = table.size if index is None else len(index)
    total, mean, scatter = 0.0, torch.zeros(()), torch.zeros(())
    for start in range(0, size, chunk_rows):
        chosen: slice | Tensor = slice(start, min(start + chunk_rows, size))
        chosen = chosen if index is None else index[chosen]
        points = table.take(chosen).to(torch.float64)
        share = points.new_ones(len(points)) if weight is None else weight[chosen].to(points)
        if (mass := float(share.sum())) == 0.0:
            continue
        centre = points[0] + share @ (points - points[0]) / mass
        centre = centre + share @ (points - centre) / mass  # removes the rounding of a far offset
        spread = points - centre
        chunk = (spread * share[:, None]).T @ spread
        step, grown = centre - mean.to(centre), total + mass
        scatter = scatter.to(chunk) + chunk + torch.outer(step, step) * (total * mass / grown)
        mean, total = mean.to(centre) + step * (mass / grown), grown
    if total == 0.0:
        raise DataError(f"expected {table.name} to have rows of positive weight, got none")
    covariance = scatter / total
    if not bool(torch.isfinite(covariance).all()):
        raise DataError(f"expected {table.name} below 1e150 in size, got larger values: rescale the data")
    return mean, (covariance + covariance.T) / 2


@dataclass(frozen=True, eq=False)
class Standardizer:
    """Affine coordinates of source and target in which a gradient map stays a gradient map.

    x̃ = M(x − m_x) and ỹ = M⁻ᵀ(y − m_y)/κ, so T(x) = m_y + κ Mᵀ T̃(x̃) is the gradient of
    φ(x) = κ φ̃(x̃) + ⟨m_y, x⟩ whenever T̃ = ∇φ̃. The scalar κ carries the units of the product ⟨x, y⟩: with
    it both sides have unit size whatever the units of the data.

    Attributes:
        shift_x: m_x (features,), float64, units of the source.
        shift_y: m_y (features,), float64, units of the target.
        matrix: M (features, features), float64.
        inverse: M⁻¹ (features, features), float64.
        scale: κ > 0, float64 scalar tensor.

    Example:
        >>> zero, one = torch.zeros(1), torch.ones(1, 1)
        >>> units = Standardizer.bures(zero, one, zero + 3, 4 * one)   # N(0, 1) → N(3, 4): T(x) = 3 + 2x
        >>> x = torch.tensor([[0.5]], dtype=torch.float64)
        >>> units.target_inverse(units.source(x)).item()
        4.0
    """

    shift_x: Tensor
    shift_y: Tensor
    matrix: Tensor
    inverse: Tensor
    scale: Tensor

    def source(self, x: Tensor, *, dtype: torch.dtype = torch.float64) -> Tensor:
        """Standardised x̃ (n, features) of x in data units, shifted in float64 before the cast."""
        return ((x.to(torch.float64) - self.shift_x) @ self.matrix.T).to(dtype)

    def source_inverse(self, x: Tensor, *, dtype: torch.dtype = torch.float64) -> Tensor:
        """Source points x (n, features) in data units of standardised x̃."""
        return (x.to(torch.float64) @ self.inverse.T + self.shift_x).to(dtype)

    def target(self, y: Tensor, *, dtype: torch.dtype = torch.float64) -> Tensor:
        """Standardised ỹ (n, features) of y in data units, shifted in float64 before the cast."""
        return ((y.to(torch.float64) - self.shift_y) / self.scale @ self.inverse).to(dtype)

    def target_inverse(self, y: Tensor, *, dtype: torch.dtype = torch.float64) -> Tensor:
        """Target points y (n, features) in data units of ỹ; of ỹ = T̃(x̃) this is the map's value T(x)."""
        return (self.scale * (y.to(torch.float64) @ self.matrix) + self.shift_y).to(dtype)

    def potential(self, x: Tensor, value: Tensor) -> Tensor:
        """Potential φ(x) (n,) in data units from x in data units and `value` = φ̃(x̃)."""
        return self.scale * value.to(torch.float64) + x.to(torch.float64) @ self.shift_y

    def conjugate(self, y: Tensor, value: Tensor) -> Tensor:
        """Conjugate φ*(y) (n,) in data units from y in data units and `value` = φ̃*(ỹ)."""
        return self.scale * value.to(torch.float64) + (y.to(torch.float64) - self.shift_y) @ self.shift_x

    def strong_convexity(self, standardised: float) -> float:
        """Strong convexity of φ in data units, κ μ̃ σ_min(M)², from μ̃ of φ̃."""
        smallest = torch.linalg.svdvals(self.matrix)[-1]
        return float(self.scale * smallest**2) * standardised

    def to(self, device: torch.device | str) -> Standardizer:
        """The same coordinates with tensors on `device`."""
        return Standardizer(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    @classmethod
    def scalar(cls, mean_x: Tensor, mean_y: Tensor, scale: float, scale_y: float | None = None) -> Standardizer:
        """Shifts and one scale a side: x̃ = (x − m_x)/scale, ỹ = (y − m_y)/scale_y.

        Args:
            mean_x: Centre of the source (features,), data units.
            mean_y: Centre of the target (features,), data units.
            scale: Positive size of the source, data units.
            scale_y: Positive size of the target; None takes `scale`.

        Returns:
            The coordinates, float64.

        Raises:
            ValueError: A scale is not a positive finite number.
        """
        other = scale if scale_y is None else scale_y
        if not (0 < scale < float("inf") and 0 < other < float("inf")):
            raise ValueError(f"expected positive finite scales, got {scale} and {other}")
        shift_x, shift_y = mean_x.to(torch.float64), mean_y.to(torch.float64)
        unit = torch.eye(len(shift_x), dtype=torch.float64, device=shift_x.device)
        return cls(shift_x, shift_y, unit / scale, unit * scale, shift_x.new_tensor(scale * other))

    @classmethod
    def bures(
        cls, mean_x: Tensor, cov_x: Tensor, mean_y: Tensor, cov_y: Tensor, *, floor: float = 1e-10
    ) -> Standardizer:
        """Coordinates in which the optimal map between the two Gaussians is the identity.

        M = c A^½ with A = Σx^−½ (Σx^½ Σy Σx^½)^½ Σx^−½, the optimal linear map; c gives the standardised
        source average variance 1. Both sides are first divided by their own scalar scale, and
        eigenvalues below `floor` times the largest are raised to it, so that constant or duplicated
        columns and any units are fine.

        Args:
            mean_x: Mean of the source (features,).
            cov_x: Covariance of the source (features, features).
            mean_y: Mean of the target (features,).
            cov_y: Covariance of the target (features, features).
            floor: Smallest relative eigenvalue of a covariance. Of fewer than about four rows a column the
                small eigenvalues are noise: 0.1 then gives the better map.

        Returns:
            The coordinates, float64.

        References:
            Dowson & Landau (1982), The Fréchet distance between multivariate normal distributions,
            J. Multivariate Anal. 12.
        """
        shift_x, shift_y = mean_x.to(torch.float64), mean_y.to(torch.float64)
        size_x, size_y = _scalar_scale(shift_x, cov_x), _scalar_scale(shift_y, cov_y)
        unit_x = cov_x.to(torch.float64) / size_x**2
        root_x, root_y = _floored_root(unit_x, floor), _floored_root(cov_y / size_y**2, floor)
        # the singular values of Σy^½ Σx^½ are the eigenvalues of (Σx^½ Σy Σx^½)^½, without squaring the
        # condition number
        _, singular, right = torch.linalg.svd(root_y @ root_x)
        whitened = torch.linalg.solve(root_x, right.mT)
        values, vectors = torch.linalg.eigh((whitened * singular) @ whitened.mT)
        values = values.clamp_min(floor * float(values[-1])).sqrt()
        half = (vectors * values) @ vectors.mT
        average = float(torch.trace(half @ unit_x @ half)) / len(shift_x)
        stretch = average**-0.5 if average > floor else 1.0
        return cls(
            shift_x,
            shift_y,
            half * (stretch / size_x),
            (vectors / values) @ vectors.mT * (size_x / stretch),
            shift_x.new_tensor(size_x * size_y / stretch**2),
        )


def _scalar_scale(mean: Tensor, covariance: Tensor) -> float:
    """Root of the average variance; of constant data, whose variance is rounding, the size of the mean."""
    deviation = float(covariance.to(torch.float64).diagonal().mean().clamp_min(0).sqrt())
    offset = float(mean.abs().max())
    if deviation > 16 * torch.finfo(torch.float64).eps * offset:
        return deviation
    return offset or 1.0


def _floored_root(covariance: Tensor, floor: float) -> Tensor:
    """Symmetric root of a covariance of unit size, eigenvalues raised to `floor` times the largest."""
    values, vectors = torch.linalg.eigh(covariance.to(torch.float64))
    largest = float(values[-1]) if float(values[-1]) > floor else 1.0
    root: Tensor = (vectors * values.clamp_min(floor * largest).sqrt()) @ vectors.mT
    return root
