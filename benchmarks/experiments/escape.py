"""A weight on softplus' shoulder as a diffusion on the line: how soon does it leave, at which noise in its slack?"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmarks.experiments import Experiment, Page
from benchmarks.experiments.cells import ExperimentCell, ExperimentMethod, ExperimentTask, Outcome, Record
from benchmarks.experiments.pages import medians, seeds_cell
from benchmarks.experiments.training import SHOULDER
from benchmarks.tasks import Options
from ot_lift.report_figures import Plot
from ot_lift.report_tables import Cell, Column, Row, Table
from ot_lift.report_theme import Picture, Theme, panels, plain_ticks
from ot_lift.report_words import number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = npt.NDArray[np.float64]

NAME = "escape"
WORDS = (
    "One weight softplus(θ) under the loss ½(softplus(θ) − 1)², as the diffusion dθ = −∂L/∂θ dt + s dW that a slack "
    "with noise follows. It starts at θ = −6, where softplus passes on a four-hundredth of a gradient, with a wall at "
    "−8, and has escaped when the weight reaches 0.0513. Direct softplus has no such noise: s = 0. The rate of escape "
    "is one over the mean time; beside the simulation stands the exact mean time, by quadrature."
)
NOISES = (0.0, 0.05, 0.1, 0.2, 0.4)
START, WALL, LEAVE = -6.0, -8.0, float(np.log(np.expm1(SHOULDER)))
_STEP, _HORIZON = 0.02, 5_000.0
_NODES = 10_001


def drift(theta: Array) -> Array:
    """−∂L/∂θ of L = ½(softplus(θ) − 1)².

    Example:
        >>> round(float(drift(np.array(0.0))), 6)  # ½(1 − log 2)
        0.153426
    """
    found: Array = (1 - np.logaddexp(0.0, theta)) / (1 + np.exp(-theta))
    return found


def exact_time(noise: float, force: Callable[[Array], Array] = drift) -> float:
    """Mean time from the start to where the shoulder ends, with a reflecting wall; by the trapezoidal rule.

    Args:
        noise: s.
        force: of θ.

    References:
        Gardiner (2009), "Stochastic Methods", §5.5.2 (mean first-passage time).

    Example:
        >>> still = lambda theta: np.zeros_like(theta)  # Brownian motion: ((b − a)² − (x − a)²)/s²
        >>> expected = ((LEAVE - WALL) ** 2 - (START - WALL) ** 2) / 0.25
        >>> round(exact_time(0.5, still) / expected, 6)
        1.0
    """
    after = np.linspace(START, LEAVE, _NODES)
    if noise == 0:
        return float(np.trapezoid(1 / force(after), after))
    place = np.concatenate([np.linspace(WALL, START, _NODES)[:-1], after])
    pulls, gaps = force(place), np.diff(place)
    # ∫ₐʸ exp(Φ(y) − Φ(z))dz, Φ′ = −2·force/s², cell by cell: no exponential of a large number is formed.
    inner = np.zeros_like(place)
    for k, factor in enumerate(np.exp(-(pulls[:-1] + pulls[1:]) * gaps / noise**2)):
        inner[k + 1] = factor * inner[k] + gaps[k] * (1 + factor) / 2
    return float(2 / noise**2 * np.trapezoid(inner[-_NODES:], after))


def escape_times(noise: float, paths: int, rng: np.random.Generator) -> Array:
    """Times of escape of independent paths, `(paths,)`, by the Euler–Maruyama method; the horizon where one stays.

    Example:
        >>> times = escape_times(0.0, 2, np.random.default_rng(0))
        >>> bool(times[0] == times[1]), bool(abs(times[0] / exact_time(0.0) - 1) < 1e-2)
        (True, True)
    """
    theta, times = np.full(paths, START), np.full(paths, _HORIZON)
    inside = np.arange(paths)
    step = 0
    while len(inside) and step * _STEP < _HORIZON:
        step += 1
        theta = theta + _STEP * drift(theta) + noise * np.sqrt(_STEP) * rng.standard_normal(len(theta))
        theta = np.where(theta < WALL, 2 * WALL - theta, theta)
        out = theta >= LEAVE
        times[inside[out]] = step * _STEP
        inside, theta = inside[~out], theta[~out]
    return times


@dataclass(frozen=True)
class EscapeTask(ExperimentTask):
    """The diffusion.

    Attributes:
        paths: simulated.
        quick: whether these are few.
    """

    paths: int = 2_000
    quick: bool = False

    @property
    def name(self) -> str:
        return f"{NAME}-shoulder"

    def settings(self) -> dict[str, Any]:
        return {
            "experiment": NAME,
            "title": "A weight on the shoulder",
            "words": WORDS,
            "quick": self.quick,
            "paths": self.paths,
            "start": START,
            "wall": WALL,
            "step": _STEP,
        }

    def run(self, method: ExperimentMethod, seed: int, needed: Record | None) -> Outcome:
        noise = float(method.settings["noise"])
        times = escape_times(noise, self.paths, np.random.default_rng(seed))
        figures = {
            "noise": noise,
            "escape_rate": float(1 / times.mean()),
            "exact_escape_rate": 1 / exact_time(noise),
            "stayed_share": float((times >= _HORIZON).mean()),
        }
        return Outcome(figures, {"quantiles": np.quantile(times, [0.05, 0.5, 0.95]).round(2).tolist()})


def methods() -> list[ExperimentMethod]:
    """Every amount of noise; none is direct softplus."""
    return [ExperimentMethod(f"noise {noise:g}" if noise else "direct", {"noise": noise}) for noise in NOISES]


def cells(options: Options, seeds: Sequence[int], threads: int) -> list[ExperimentCell]:
    """Every amount of noise and seed; a quick run has 100 paths."""
    task = EscapeTask(100, True) if options.quick else EscapeTask()
    return [ExperimentCell(task, method, seed, threads) for method in methods() for seed in seeds]


def page(records: Sequence[Mapping[str, Any]]) -> Page:
    """Table and picture of the rates.

    Args:
        records: Of `escape`, any of them.
    """
    rate, exact = medians(records, "escape_rate"), medians(records, "exact_escape_rate")
    order = [method.name for method in methods() if method.name in rate]
    rises = all(rate[one] < rate[two] for one, two in itertools.pairwise(order))
    told = [f"The rate of escape {'rises' if rises else 'does not rise throughout'} with the noise in the slack."]
    if "direct" in rate and len(order) > 1:
        ratio = rate[order[-1]] / rate["direct"]
        told.append(
            f"Without noise it is {number(rate['direct'])}; at {order[-1]} it is {number(ratio)} times that. "
            "It is not zero without noise: the gradient's own pull on the shoulder is small, not none."
        )
    rows = tuple(
        Row(name, False, (seeds_cell(records, name, "escape_rate"), Cell(number(exact[name]), exact[name])))
        for name in order
    )
    table = Table((Column("noise"), Column("rate of escape", "simulated"), Column("rate of escape", "exact")), rows)
    plot = Plot(
        *("rates", "Rate of escape against noise", "Dots: simulated, every seed. Line: exact."),
        "Rate of escape over the noise in the slack, simulated as dots and exact as a line.",
        Picture(lambda theme: _draw(records, theme)),
    )
    explanation = "Median over seeds, every seed below it."
    return Page(told, [("Rates", explanation, table)], [plot], [("rate of escape", "One over the mean time.")])


def _draw(records: Sequence[Mapping[str, Any]], theme: Theme) -> Figure:
    figure, (axis,) = panels(1, theme, height=3.4, across=1)
    well = [record["figures"] for record in records if record["status"] == "ok"]
    noises = np.linspace(0.0, max(one["noise"] for one in well) or 0.1, 25)
    axis.plot(noises, [1 / exact_time(float(noise)) for noise in noises], color=theme.muted, linewidth=1.3)
    axis.plot([one["noise"] for one in well], [one["escape_rate"] for one in well], "o", color=theme.ours, markersize=5)
    axis.set(yscale="log", xlabel="noise s in the slack", ylabel="rate of escape")
    plain_ticks(axis.yaxis)
    return figure


EXPERIMENT = Experiment(NAME, "Escape from the shoulder", WORDS, (0, 1, 2), cells, page)
