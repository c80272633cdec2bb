"""Potentials, wrappers and maps that the laws are tried on, by name; all of them small, none of them at its start."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ot_lift.constrained import Constrained, ConstrainedPotential
from ot_lift.lift import Lift
from ot_lift.maps import StandardisedPotential
from ot_lift.partial_icnn import ContextPotential, PartialICNN
from ot_lift.positivity import mark_nonnegative
from ot_lift.posterior_potential import CubicICNN
from ot_lift.potentials import ICNN, AutogradPotential, Potential, Quadratic
from ot_lift.standardizer import Standardizer

Make = Callable[[torch.dtype], Potential]

ROWS = 12


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers that depend on their shape and a seed alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@torch.no_grad()
def stir_(module: nn.Module, deviation: float = 0.3) -> None:
    """Move every parameter away from its start, so that none is zero; marked ones stay non-negative."""
    for seed, parameter in enumerate(module.parameters()):
        parameter.add_(deviation * normal(*parameter.shape, seed=seed, dtype=parameter.dtype))
        if getattr(parameter, "_pos_required", False):
            parameter.abs_()


def make_icnn(features: int, widths: tuple[int, ...], dtype: torch.dtype, **options: object) -> ICNN:
    options = {"sharpness": 3.0, "strong_convexity": 0.1, **options}
    network = ICNN(features, widths, dtype=torch.float64, **options)  # type: ignore[arg-type]
    stir_(network)
    return network.to(dtype)


def make_cubic(features: int, dtype: torch.dtype) -> CubicICNN:
    network = CubicICNN(features, (6, 5), cubic=4, strong_convexity=0.1, dtype=torch.float64)
    stir_(network)
    return network.to(dtype)


def make_partial(features: int, **options: object) -> PartialICNN:
    """A partially convex network of two context features, in float64."""
    network = PartialICNN(
        features,
        2,
        (6, 5),
        context_hidden_features=(4,),
        strong_convexity=0.1,
        dtype=torch.float64,
        **options,  # type: ignore[arg-type]
    )
    stir_(network)
    return network


@torch.no_grad()
def make_conditional(features: int, dtype: torch.dtype) -> ContextPotential:
    """The potential of one context."""
    return make_partial(features, sharpness=3.0).to(dtype).at(normal(1, 2, seed=3, dtype=dtype))


class LogSumExp(nn.Module):
    """log Σ exp(wᵢ aᵢ·x + bᵢ) of shape (n, 1), convex in x, with a weight marked as non-negative."""

    def __init__(self, features: int, terms: int = 6) -> None:
        super().__init__()
        self.directions = nn.Parameter(normal(terms, features, seed=1))
        self.offsets = nn.Parameter(normal(terms, seed=2))
        self.scale = nn.Parameter(normal(terms, seed=3).abs() + 0.5)
        mark_nonnegative(self.scale)

    def forward(self, x: Tensor) -> Tensor:
        return torch.logsumexp(x @ self.directions.T * self.scale + self.offsets, 1, keepdim=True)


def make_quadratic(features: int, dtype: torch.dtype) -> Quadratic:
    quadratic = Quadratic(features, strong_convexity=0.5, dtype=torch.float64)
    stir_(quadratic)
    return quadratic.to(dtype)


def make_adapter(features: int, dtype: torch.dtype) -> AutogradPotential:
    return AutogradPotential(LogSumExp(features), features, strong_convexity=0.2).to(dtype)


def make_lift(emit: str, dtype: torch.dtype) -> Lift:
    network = make_icnn(2, (7, 5), torch.float64)
    return Lift(network, features=2, emit=emit, readout_std=1.0).to(dtype)  # type: ignore[arg-type]


def make_constrained(positivity: str, dtype: torch.dtype) -> Constrained:
    return Constrained(make_icnn(2, (7, 5), dtype), positivity)


def make_coordinates(features: int, *, scale: float = 1.0, offset: float = 0.0) -> Standardizer:
    """Bures coordinates between two Gaussians of random covariance."""
    factors = (normal(features, features, seed=seed) + 2 * torch.eye(features).double() for seed in (4, 5))
    first, second = (scale**2 * factor @ factor.T for factor in factors)
    return Standardizer.bures(
        offset + scale * normal(features, seed=6), first, -offset + scale * normal(features, seed=7), second
    )


def make_sheared_coordinates(features: int) -> Standardizer:
    """Coordinates as general as they may be: the matrix is not symmetric."""
    matrix = normal(features, features, seed=4) + 2 * torch.eye(features).double()
    shifts = normal(features, seed=6), normal(features, seed=7)
    return Standardizer(*shifts, matrix, torch.linalg.inv(matrix), torch.tensor(3.0, dtype=torch.float64))


def bound(wrapper: Constrained, batch: Tensor) -> Potential:
    """The wrapper at the weights for a batch, as training evaluates it."""
    assert isinstance(wrapper, ConstrainedPotential)
    return wrapper.bind(batch=batch)


WRAPPERS: dict[str, Callable[[torch.dtype], Constrained]] = {
    **{f"constrained-{name}": lambda t, n=name: make_constrained(n, t) for name in ("softplus", "square")},
    "constrained-projection": lambda t: make_constrained("projection", t),
    "constrained-adapter": lambda t: Constrained(make_adapter(2, t), "softplus"),
    "lift-constrained": lambda t: make_lift("constrained", t),
    "lift-all": lambda t: make_lift("all", t),
    "lift-adapter": lambda t: Lift(make_adapter(2, torch.float64), features=2, readout_std=1.0).to(t),
}


def _icnns() -> dict[str, Make]:
    shapes = {"d1-one-layer": (1, (6,)), "d2-three-layers": (2, (8, 6, 5)), "d5-three-layers": (5, (6, 8, 7))}
    makers: dict[str, Make] = {}
    for activation in ("softplus", "celu", "squareplus"):
        for squared in (True, False):
            for shape, (features, widths) in shapes.items():
                options = {"activation": activation, "squared": squared, "learn_sharpness": features == 2}
                name = "-".join(["icnn", activation, "squared" if squared else "plain", shape])
                makers[name] = lambda t, d=features, w=widths, o=options: make_icnn(d, w, t, **o)
    makers["icnn-sharp"] = lambda t: make_icnn(2, (16, 16), t, sharpness=12.0)
    makers["icnn-folded-normal"] = lambda t: make_icnn(3, (5,), t, initialiser="folded_normal")
    for features in (1, 3):
        makers[f"icnn-cubic-d{features}"] = lambda t, d=features: make_cubic(d, t)
    makers["icnn-learned-one-layer-d5"] = lambda t: make_icnn(5, (6,), t, learn_sharpness=True)
    return makers


PLAIN: dict[str, Make] = {
    **_icnns(),
    **{f"quadratic-d{d}": lambda t, d=d: make_quadratic(d, t) for d in (1, 2, 5)},
    **{f"adapter-d{d}": lambda t, d=d: make_adapter(d, t) for d in (1, 3)},
    **{f"conditional-d{d}": lambda t, d=d: make_conditional(d, t) for d in (1, 3)},
}
BOUND: dict[str, Make] = {
    f"{name}-bound": lambda t, make=make: bound(make(t), normal(9, 2, seed=8, dtype=t))
    for name, make in WRAPPERS.items()
}
CONSTRAINED: dict[str, Make] = {
    name: make
    for name, make in WRAPPERS.items()
    if name.startswith("constrained")  # type: ignore[misc]
}
STANDARDISED: dict[str, Make] = {
    "standardised-icnn": lambda t: StandardisedPotential(make_icnn(2, (8, 6), t), make_coordinates(2)),
    "standardised-sheared": lambda t: StandardisedPotential(make_icnn(3, (8, 6), t), make_sheared_coordinates(3)),
    "standardised-quadratic": lambda t: StandardisedPotential(make_quadratic(3, t), make_coordinates(3)),
}
POTENTIALS: dict[str, Make] = {**PLAIN, **CONSTRAINED, **BOUND, **STANDARDISED}


def points(
    potential: Potential, generator: torch.Generator, rows: int = ROWS, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Points (rows, features) around the origin."""
    return 1.5 * torch.randn(rows, potential.features, generator=generator, dtype=torch.float64).to(dtype)
