"""What a step of training costs with each way to keep weights non-negative, beside softplus in the same process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.experiments import Experiment, Page
from benchmarks.experiments.cells import ExperimentCell, ExperimentMethod, ExperimentTask, Outcome, Record
from benchmarks.experiments.densities1d import TARGETS
from benchmarks.experiments.energies import ADMMS, ENERGY, LAYERS, LIFT, LIFT_SETTINGS, WIDTH, Data
from benchmarks.experiments.flows import FLOW_LIFT, FLOW_LIFT_SETTINGS, negative_log_likelihood
from benchmarks.experiments.pages import order_of, part, seeds_cell
from benchmarks.metrics import by_method
from benchmarks.tasks import Options
from ot_lift import ICNN, Lift
from ot_lift.constrained import Constrained
from ot_lift.report_tables import Cell, Column, Row, Table
from ot_lift.report_words import number, seconds

NAME = "overhead"
WORDS = (
    "A step of training with each positivity over a step with softplus, the two timed in turn in one process. Energy: "
    "the network of gallery1d, batches of 256 and 256 nodes of the quadrature. Flow: an input-convex network of five "
    "layers of 64 with its exact log-determinant, batches of 128 in 2 dimensions and of 256 in 21. The paper's lift "
    "emits all tensors of an energy and the constrained ones of a flow; the library's own is smaller."
)
BLOCKS, CALLS = 15, 8
PLACES = {"energy": 1, "flow-d2": 2, "flow-d21": 21}
METHODS = ("softplus", "projection", *ADMMS, "lift", "library's lift")

Step = Callable[[], None]


@dataclass(frozen=True)
class OverheadTask(ExperimentTask):
    """A network and its loss.

    Attributes:
        place: a name in `PLACES`.
        blocks: of calls, each timed as a whole.
        quick: whether these are few.
    """

    place: str
    blocks: int = BLOCKS
    quick: bool = False

    alone = True

    @property
    def name(self) -> str:
        return f"{NAME}-{self.place}"

    def settings(self) -> dict[str, Any]:
        return {
            "experiment": NAME,
            "title": self.place,
            "words": WORDS,
            "quick": self.quick,
            "blocks": self.blocks,
            "calls": CALLS,
        }

    def run(self, method: ExperimentMethod, seed: int, needed: Record | None) -> Outcome:
        own, softplus = (self._step(name, seed) for name in (method.name, "softplus"))
        for step in (own, softplus):
            _seconds(step)
        pairs = [(_seconds(own), _seconds(softplus)) for _ in range(self.blocks)]
        ratios = [first / second for first, second in pairs]
        figures = {
            "step_seconds": median(first for first, _ in pairs),
            "softplus_step_seconds": median(second for _, second in pairs),
            "step_ratio": median(ratios),
        }
        return Outcome(figures, {"ratios": [round(ratio, 4) for ratio in ratios]})

    def _step(self, name: str, seed: int) -> Step:
        if self.place == "energy":
            data = Data.drawn(TARGETS["gumbel"], seed, points=20_000)
            network = ICNN(1, (WIDTH,) * LAYERS, generator=torch.Generator().manual_seed(seed), **ENERGY)
            return _training(_model(name, network, LIFT), data.batches(seed), data.loss)
        features = PLACES[self.place]
        rows = 128 if features == 2 else 256
        network = ICNN(features, (64,) * 5, generator=torch.Generator().manual_seed(seed))
        generator = torch.Generator().manual_seed(seed)
        return _training(
            _model(name, network, FLOW_LIFT),
            lambda: torch.randn(rows, features, generator=generator),
            negative_log_likelihood,
        )


def _model(name: str, network: ICNN, lift: Mapping[str, Any]) -> Constrained:
    if name == "lift":
        return Lift(network, features=network.features, **lift)
    if name == "library's lift":
        return Lift(network, features=network.features)
    return Constrained(network, ADMMS.get(name, name))


def _training(
    model: Constrained, next_batch: Callable[[], Tensor], loss: Callable[[torch.nn.Module, Tensor], Tensor]
) -> Step:
    """A step as `benchmarks.experiments.training` takes it, at a step size that leaves the network where it is."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=1e-6, fused=True)

    def step() -> None:
        batch = next_batch()
        value = loss(model.bind(model.weights(batch)), batch) + model.penalty()
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(value)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        optimizer.step()
        model.after_step()

    return step


def _seconds(step: Step) -> float:
    began = time.perf_counter()
    for _ in range(CALLS):
        step()
    return (time.perf_counter() - began) / CALLS


def page(records: Sequence[Record]) -> Page:
    """The table of step times.

    Args:
        records: Of `overhead`, any of them.
    """
    there = {name: own for name in PLACES if (own := part(records, title=name))}
    rows = tuple(
        Row(
            name,
            name == "lift",
            tuple(cell for own in there.values() for cell in (seeds_cell(own, name, "step_ratio"), _time(own, name))),
        )
        for name in order_of(records, METHODS)
    )
    headings = [column for name in there for column in (Column(name, "over softplus"), Column(name, "a step"))]
    told = [
        f"{place}: a step with the lift takes {number(median(values.values()))} times as long as with softplus."
        for place, own in there.items()
        if (values := by_method(own, "step_ratio").get("lift"))
    ]
    busy = sum(bool(record["timing"]["contended"]) for record in records)
    if busy:
        told.append(f"Other work shared the machine in {busy} of {len(records)} cells: run them again when it is idle.")
    table = Table((Column("method"), *headings), rows)
    explanation = "Median over seeds, every seed below it; both sides of a ratio are timed in turn."
    return Page(told, [("A step of training", explanation, table)], [], [("over softplus", "Time over time.")])


def _time(records: Sequence[Record], name: str) -> Cell:
    values = by_method(records, "step_seconds").get(name)
    return Cell(seconds(median(values.values())), median(values.values())) if values else Cell("–")


def cells(options: Options, seeds: Sequence[int], threads: int) -> list[ExperimentCell]:
    """Every network, method and seed.

    Args:
        options: A quick run has three blocks and no flow in 21 dimensions.
        seeds: Of starts and batches.
        threads: Of every cell.
    """
    short: dict[str, Any] = {"blocks": 3, "quick": True} if options.quick else {}
    own = {"lift": {"energy": LIFT_SETTINGS, "flow": FLOW_LIFT_SETTINGS}}
    return [
        ExperimentCell(OverheadTask(place, **short), ExperimentMethod(name, own.get(name, {})), seed, threads)
        for place in PLACES
        if not (options.quick and place == "flow-d21")
        for name in METHODS
        for seed in seeds
    ]


EXPERIMENT = Experiment(NAME, "What a step costs", WORDS, (0, 1, 2), cells, page)
