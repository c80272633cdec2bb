"""Training steps with log-determinants, beside what others do: `python -m benchmarks.log_determinant`.

A step is forward and backward, in the parameters, of the mean of ½‖∇φ‖² − log det ∇²φ: one thread, float32. Networks
are timed as initialised, where Hessians are close to multiples of the identity, and after a short training on bent
and mixed data, where they are not. References: d batched backward passes, `torch.func`'s vmap(hessian), and conjugate
gradients on autograd's Hessian-vector products, all written out here. All methods take turns in one run.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad, hessian, vmap

from benchmarks.record import figure, write_record
from ot_lift import ICNN
from ot_lift.constrained import ConstrainedPotential
from ot_lift.logdet import SOLVE_COST, STOCHASTIC_FROM, LogDetMethod, log_det_for_training
from ot_lift.logdet_stochastic import rademacher
from ot_lift.potentials import Potential

Step = Callable[[Potential, Tensor, torch.Generator], tuple[Tensor, Tensor]]

# features: hidden layers and batch
_NETWORKS = {2: ((64,) * 5, 128), 6: ((64,) * 5, 256), 21: ((64,) * 5, 256), 43: ((128,) * 4, 128)}
_CROSSOVER = dict.fromkeys((4, 6, 8, 12, 16, 32), ((64,) * 5, 256))
_ROUNDS, _QUICK_ROUNDS = 25, 5
_TRAINING_STEPS, _TRAINING_ROWS = 200, 20_000
_TOL = 1e-3  # of a solve by conjugate gradients, ours and the reference's
_AT_LEAST = 3.0  # times faster than the faster brute force, from d = 6 on


def ours(method: LogDetMethod) -> Step:
    """The library's step by one of its methods."""

    def step(potential: Potential, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return log_det_for_training(potential, x, method=method, generator=generator)[1:]

    return step


def backward_passes(potential: Potential, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """∇φ and log det ∇²φ by autograd: the Hessian's columns one after the other, each for all points at once."""
    leaf = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(potential(leaf).sum(), leaf, create_graph=True)
    columns = [torch.autograd.grad(gradient[:, i].sum(), leaf, create_graph=True)[0] for i in range(x.shape[1])]
    return gradient, torch.linalg.slogdet(torch.stack(columns, 2)).logabsdet


def vmap_hessian(potential: Potential, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """∇φ and log det ∇²φ by torch.func, as its documentation does it."""
    parameters: dict[str, Tensor] = dict(potential.named_parameters())

    def value(row: Tensor) -> Tensor:
        return functional_call(potential, parameters, (row[None],))[0]

    return vmap(grad(value))(x), torch.linalg.slogdet(vmap(hessian(value))(x)).logabsdet


def autograd_conjugate_gradients(potential: Potential, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """∇φ and v′(∇²φ·u) for ∇²φ·u = v, a Rademacher v and fixed u: CG, every product a backward pass."""
    leaf = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(potential(leaf).sum(), leaf, create_graph=True)

    def product(v: Tensor, *, graph: bool = False) -> Tensor:
        return torch.autograd.grad(gradient, leaf, v, retain_graph=True, create_graph=graph)[0]

    probe = rademacher(x, generator)
    solution, residual, direction = torch.zeros_like(probe), probe, probe
    square = start = residual.square().sum(1, keepdim=True)
    for _ in range(2 * x.shape[1]):
        image = product(direction)
        length = square / (direction * image).sum(1, keepdim=True)
        solution, residual = solution + length * direction, residual - length * image
        before, square = square, residual.square().sum(1, keepdim=True)
        if bool((square <= _TOL**2 * start).all()):
            break
        direction = residual + square / before * direction
    return gradient, (probe * product(solution, graph=True)).sum(1)


BRUTE: Mapping[str, Step] = {"d backward passes": backward_passes, "vmap(hessian)": vmap_hessian}
CG = "CG on autograd products"
OURS: Mapping[str, Step] = {"exact": ours("exact"), "stochastic": ours("stochastic")}


def loss(step: Step, potential: Potential, x: Tensor, generator: torch.Generator) -> Tensor:
    """Mean of ½‖∇φ‖² − log det ∇²φ."""
    gradient, log_det = step(potential, x, generator)
    return (0.5 * gradient.square().sum(1) - log_det).mean()


def seconds(steps: Mapping[str, Step], potential: Potential, x: Tensor, rounds: int) -> dict[str, list[float]]:
    """Wall-clock seconds of forward and backward; each round runs every step, in an order that rotates."""
    generator = torch.Generator().manual_seed(0)
    times: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for turn in range(-2, rounds):  # two for warm-up
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            potential.zero_grad()
            began = time.perf_counter()
            loss(steps[name], potential, x, generator).backward()
            if turn >= 0:
                times[name].append(time.perf_counter() - began)
    return times


def data(d: int) -> Tensor:
    """Bent, mixed, standardised points ``(n, d)``."""
    generator = torch.Generator().manual_seed(d)
    points = torch.sinh(torch.randn(_TRAINING_ROWS, d, generator=generator))
    points = points @ torch.randn(d, d, generator=generator)
    return (points - points.mean(0)) / points.std(0)


def train(network: ICNN, points: Tensor, rows: int) -> Potential:
    """The network after some steps of maximum likelihood, its weights kept non-negative by projection."""
    generator = torch.Generator().manual_seed(1)
    model = ConstrainedPotential(network, "projection")
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(_TRAINING_STEPS):
        x = points[torch.randint(0, len(points), (rows,), generator=generator)]
        optimizer.zero_grad()
        loss(ours("auto"), model.bind(), x, generator).backward()
        optimizer.step()
        model.after_step()
    baked = model.bake()
    if not isinstance(baked, Potential):
        raise TypeError(f"expected a Potential, got {type(baked).__name__}")
    return baked


def networks(d: int, widths: tuple[int, ...], rows: int) -> dict[str, tuple[Potential, Tensor]]:
    """The networks of one size with the batch to time them on."""
    points = data(d)
    start = ICNN(d, widths)
    return {"at the start": (start, points[:rows]), "trained": (train(start, points, rows), points[:rows])}


def ratios(times: Mapping[str, list[float]], above: str, below: str) -> tuple[float, list[float]]:
    """Ratio of medians, and that of every round."""
    rounds = [one / other for one, other in zip(times[above], times[below], strict=True)]
    return median(times[above]) / median(times[below]), rounds


def target_figures(rounds: int, table: dict[str, Any]) -> list[dict[str, Any]]:
    """The default step against every reference, at the sizes and with the targets of record."""
    rows = []
    for d, (widths, batch) in _NETWORKS.items():
        for state, (potential, x) in networks(d, widths, batch).items():
            steps = {"default": ours("auto"), **OURS, **BRUTE, CG: autograd_conjugate_gradients}
            times = seconds(steps, potential, x, rounds)
            place = f"step with log-determinant, d = {d}, {len(widths)}×{widths[0]}, {state}"
            table[place] = {name: 1e3 * median(values) for name, values in times.items()}
            print(place, {name: f"{value:.1f} ms" for name, value in table[place].items()}, flush=True)
            faster = min(BRUTE, key=lambda name: median(times[name]))
            value, spread = ratios(times, faster, "default")
            bar = _AT_LEAST if d >= 6 else None
            rows.append(figure(f"{place}: time of {faster} over ours", value, at_least=bar, spread=spread))
            value, spread = ratios(times, CG, "default")
            rows.append(figure(f"{place}: time of {CG} over ours", value, at_least=1.0, spread=spread))
    return rows


def solve_cost(potential: Potential, x: Tensor, rounds: int) -> float:
    """How many Hessian-vector products a Hessian and its Cholesky factor cost, over d."""
    times: list[tuple[float, float]] = []
    with torch.no_grad():
        product, v = potential.linearise(x)[2], torch.ones_like(x)
        for _ in range(-2, rounds):
            began = time.perf_counter()
            product(v)
            between = time.perf_counter()
            torch.linalg.cholesky_ex(potential.hessian(x))
            times.append((between - began, time.perf_counter() - between))
    products, solves = zip(*times[2:], strict=True)
    return median(solves) / median(products) / x.shape[1]


def crossover_figures(rounds: int, table: dict[str, Any]) -> list[dict[str, Any]]:
    """The exact step over the stochastic one by dimension, and what a direct solve costs."""
    rows = []
    for d, (widths, batch) in _CROSSOVER.items():
        for state, (potential, x) in networks(d, widths, batch).items():
            times = seconds(OURS, potential, x, rounds)
            place = f"d = {d}, {len(widths)}×{widths[0]}, batch {batch}, {state}"
            table[place] = {name: 1e3 * median(values) for name, values in times.items()}
            value, spread = ratios(times, "exact", "stochastic")
            rows.append(figure(f"{place}: exact over stochastic", value, spread=spread))
            print(rows[-1]["figure"], f"{value:.2f}", flush=True)
        cost = solve_cost(potential, x, rounds)
        rows.append(figure(f"d = {d}: Hessian and factor, in products over d", cost))
        print(rows[-1]["figure"], f"{cost:.2f}", flush=True)
    return rows


def main() -> None:
    """Run and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"{_QUICK_ROUNDS} rounds, and no record")
    quick = parser.parse_args().quick
    rounds = _QUICK_ROUNDS if quick else _ROUNDS
    torch.set_num_threads(1)
    milliseconds: dict[str, dict[str, Any]] = {"targets": {}, "crossover": {}}
    with warnings.catch_warnings():  # torch.func's forward-over-reverse resizes outputs of its own
        warnings.filterwarnings("ignore", "An output with one or more elements was resized", UserWarning)
        figures = target_figures(rounds, milliseconds["targets"])
        figures += crossover_figures(rounds, milliseconds["crossover"])
    if quick:
        return
    settings = {
        "networks": {str(d): {"hidden_features": list(w), "batch": n} for d, (w, n) in _NETWORKS.items()},
        "rounds": rounds,
        "training": {"steps": _TRAINING_STEPS, "rows": _TRAINING_ROWS, "learning_rate": 5e-3},
        "tol": _TOL,
        "dtype": "float32",
        "stochastic_from": STOCHASTIC_FROM,
        "solve_cost": SOLVE_COST,
    }
    details = {"milliseconds": milliseconds}
    write_record("log_determinant", settings=settings, seeds=[0], figures=figures, details=details)


if __name__ == "__main__":
    main()
