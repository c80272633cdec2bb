"""Tabular sets: a convex potential flow and a log-concave energy under every positivity, against Gaussians.

In full on the sets that scikit-learn ships: four sets, two models, three methods (energies: six), two protocols, three
seeds, and three step sizes on one more seed; about an hour of CPU time. The published sets take as long each as all
of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from sklearn import datasets

from benchmarks.experiments import Experiment
from benchmarks.experiments.cells import ExperimentCell, ExperimentMethod
from benchmarks.experiments.densities1d import Array
from benchmarks.experiments.energies import ADMMS, ENERGY, SETTINGS
from benchmarks.experiments.flows import FLOW_LIFT_SETTINGS
from benchmarks.experiments.likelihood_task import POSITIVITIES, PROTOCOLS, LikelihoodTask, likelihood_cells
from benchmarks.experiments.likelihoods import (
    ENERGY_WIDTHS,
    FLOW,
    PROPOSAL,
    EnergyLikelihood,
    FlowLikelihood,
    Likelihood,
    Points,
)
from benchmarks.experiments.published import PUBLISHED, Splits, uncorrelated
from benchmarks.experiments.tabular_page import page
from benchmarks.tasks import Options

NAME = "tabular"
SHIPPED = ("iris", "wine", "diabetes", "breast_cancer")
MODELS = ("flow", "energy")
WORDS = (
    "Densities of tables of numbers: scikit-learn's iris, wine, diabetes and breast cancer, without columns of fewer "
    "than ten values and without columns of a correlation above 0.98 with another, split 60 : 20 : 20 at random; with "
    "--data also POWER, GAS, HEPMASS, MINIBOONE and BSDS300 in the published preprocessing (Papamakarios et al. 2017), "
    "of which the sets whose files are there are run. Flow: a convex potential flow of two layers of 64, with an exact "
    "likelihood. Energy: a network of three layers of 128 and, for its normaliser, importance sampling under a flow "
    "that is fitted before, the same for every method; the paper's has five layers of 512 and trains that flow "
    "jointly. Both work in coordinates in which the shrinkage Gaussian (Ledoit and Wolf) of the training points is "
    "N(0, I). Protocol paper: Adam at a step size of 5·10⁻³ for flows, 10⁻³ for energies. Protocol tuned: the best of "
    "three step sizes for every method by validation on one seed that no result has, a cosine schedule and averaged "
    "weights. Both keep the weights that validate best. ADMM is for energies alone: its iterates may be negative, and "
    "then a flow has no likelihood."
)
_ITERATIONS = {"flow": 900, "energy": 1_200}
_PUBLISHED_ITERATIONS = {"flow": 2_000, "energy": 4_000}
_RATES = {"flow": 5e-3, "energy": 1e-3}  # of the paper's protocol
_FEW_VALUES = 10
_SHARES = (0.6, 0.2)
_VALIDATION_ROWS = 10_000  # at most, drawn at random: twenty looks at a fit take them all
_SHORT: Mapping[str, Any] = {"iterations": 60, "proposal_steps": 40, "quick": True}
_QUICK_SETS = ("iris", "diabetes")


def shipped(name: str, seed: int) -> Splits:
    """A set of scikit-learn's, its continuous columns, split at random.

    Example:
        >>> [one.shape for one in shipped("wine", 0)]
        [(106, 13), (36, 13), (36, 13)]
    """
    data: Array = np.asarray(getattr(datasets, f"load_{name}")().data, dtype=np.float64)
    many = [len(np.unique(column)) >= _FEW_VALUES for column in data.T]
    data = uncorrelated(data[:, many])
    data = data[np.random.default_rng(seed).permutation(len(data))]
    first, second = (int(share * len(data)) for share in np.cumsum(_SHARES))
    return data[:first], data[first:second], data[second:]


@dataclass(frozen=True, kw_only=True)
class TabularTask(LikelihoodTask):
    """A model of a table under a protocol.

    Attributes:
        table: a name in `SHIPPED` or `PUBLISHED`.
        model: "flow" or "energy".
        folder: with the published files, or None.
        proposal_steps: of the fit of the flow that an energy is normalised under.
    """

    experiment: ClassVar[str] = NAME
    words: ClassVar[str] = WORDS

    table: str
    model: str
    folder: Path | None = None
    proposal_steps: int = int(PROPOSAL["max_steps"])

    @property
    def place(self) -> str:
        return f"{self.table.replace('_', '')}-{self.model}"

    def settings(self) -> dict[str, Any]:
        flow = {**FLOW, "hidden_features": list(FLOW["hidden_features"])}
        proposal = {**PROPOSAL, "hidden_features": list(PROPOSAL["hidden_features"]), "max_steps": self.proposal_steps}
        own: dict[str, Any] = {"network": flow}
        if self.model == "energy":
            own = {"network": {**ENERGY, "hidden_features": list(ENERGY_WIDTHS)}, "proposal": proposal}
        return super().settings() | {"table": self.table, "model": self.model, **own}

    def points(self, seed: int) -> Points:
        if self.table in SHIPPED:
            return Points.of(*shipped(self.table, seed))
        if self.folder is None:
            raise ValueError(f"expected a folder with the files of {self.table}, got none: give --data")
        training, validation, test = PUBLISHED[self.table].load(self.folder)
        few = np.random.default_rng(seed).permutation(len(validation))[:_VALIDATION_ROWS]
        return Points.of(training, validation[few], test)

    def likelihood(self, seed: int) -> Likelihood:
        points = self.points(seed)
        return FlowLikelihood(points) if self.model == "flow" else EnergyLikelihood(points, seed, self.proposal_steps)


def methods(model: str) -> list[ExperimentMethod]:
    """Every positivity with what it is made of; the paper's lift differs between flows and energies."""
    names = [*POSITIVITIES, *(ADMMS if model == "energy" else ())]
    own = SETTINGS if model == "energy" else {"lift": FLOW_LIFT_SETTINGS}
    return [ExperimentMethod(name, {"positivity": name, **own.get(name, {})}) for name in names]


def cells(options: Options, seeds: Sequence[int], threads: int) -> list[ExperimentCell]:
    """Every table, model, protocol, method and seed; the Gaussians, which no model changes, beside every model.

    Args:
        options: A quick run has two tables, 60 steps, no ADMM and nothing tuned; `data` may have the published files.
        seeds: Of splits, starts and batches.
        threads: Of every cell.
    """
    there = [name for name, table in PUBLISHED.items() if table.is_in(options.data)]
    found = []
    for table in _QUICK_SETS if options.quick else (*SHIPPED, *there):
        for model in MODELS:
            iterations = (_ITERATIONS if table in SHIPPED else _PUBLISHED_ITERATIONS)[model]
            settings = {"iterations": iterations, **(_SHORT if options.quick else {})}
            tasks = {
                protocol: TabularTask(
                    table=table,
                    model=model,
                    protocol=protocol,
                    learning_rate=_RATES[model],
                    folder=options.data,
                    **settings,
                )
                for protocol in (("paper",) if options.quick else PROTOCOLS)
            }
            own = [method for method in methods(model) if not (options.quick and method.name in ADMMS)]
            found += likelihood_cells(tasks, own, seeds, threads)
    return found


EXPERIMENT = Experiment(NAME, "Tabular data", WORDS, (0, 1, 2), cells, page)
