"""What the quality benchmarks share: L2-UVP of a map, its curve over a fit, and the settings they stand for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from ot_lift import BrenierMap
from ot_lift.maps import StandardisedPotential

Fitted = TypeVar("Fitted", bound=BaseEstimator)

EVALUATION_SEED = 977  # fresh points that no fit ever sees: streams of fits are seeded by small integers


def l2_uvp(image: Tensor, truth: Tensor) -> float:
    """100·E‖T̂ − T‖²/Var(target), in percent (Korotin et al. 2021, arXiv 2106.01954)."""
    error = (image.double() - truth.double()).square().sum(1).mean()
    return float(100 * error / truth.double().var(0).sum())


def defaults(kind: Callable[[], BaseEstimator] = BrenierMap) -> dict[str, Any]:
    """An estimator's default parameters, as JSON has them: a record is out of date when they have changed."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in kind().get_params().items()}


class Curve:
    """A callback that notes L2-UVP on fresh points against the seconds of a fit."""

    def __init__(self, x: Tensor, truth: Tensor) -> None:
        self.x, self.truth = x, truth
        self.rows: list[tuple[float, float]] = []

    def __call__(self, record: dict[str, float], potential: StandardisedPotential) -> None:
        with torch.no_grad():
            value = l2_uvp(potential.gradient(self.x), self.truth)
        self.rows.append((round(record["seconds"], 2), round(value, 5)))
        print(f"  {record['seconds']:7.1f} s  step {int(record['step']):6d}  L2-UVP {value:.4f}%", flush=True)


def timed_fit(fit: Callable[[], Fitted]) -> tuple[Fitted, float]:
    """A fitted estimator and the wall-clock seconds of its fit."""
    began = time.monotonic()
    fitted = fit()
    return fitted, time.monotonic() - began
