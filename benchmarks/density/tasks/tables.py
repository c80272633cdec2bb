"""Tables that scikit-learn ships: a few hundred rows, correlated columns, and nobody knows the density."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine

from benchmarks.density import DensityProblem, DensityTask
from benchmarks.tasks import Array, Options

_TEST_SHARE = 0.25
_SEX = 1  # a column of the diabetes table that has two values


def _diabetes() -> Array:
    return np.asarray(np.delete(load_diabetes(scaled=False).data, _SEX, axis=1))


TABLES: Mapping[str, tuple[Callable[[], Any], str]] = {
    "breast-cancer": (
        lambda: load_breast_cancer().data,
        "Thirty measurements of 569 cell images (Street et al. 1993).",
    ),
    "diabetes": (_diabetes, "Nine measurements of 442 patients, without the column of two values (Efron et al. 2004)."),
    "iris": (lambda: load_iris().data, "Four measurements of 150 flowers (Fisher 1936)."),
    "wine": (lambda: load_wine().data, "Thirteen measurements of 178 wines (Aeberhard et al. 1992)."),
}


def resolution(columns: Array) -> Array:
    """The least gap between distinct values of each column, `(d,)`: what it was rounded to.

    Example:
        >>> resolution(np.array([[0.1, 5.0], [0.3, 5.0], [0.35, 9.0]])).round(6).tolist()
        [0.05, 4.0]
    """
    gaps = [np.diff(np.unique(np.round(column, 9))) for column in columns.T]
    return np.array([gap.min() if len(gap) else 1.0 for gap in gaps])


@dataclass(frozen=True)
class TableDensity(DensityTask):
    """Rows of one of `TABLES`, divided by each column's standard deviation.

    Attributes:
        table: its name.

    Example:
        >>> task = TableDensity(features=4, rows=112, test_rows=38, budget_seconds=1.0, table="iris")
        >>> task.name, task.problem(0).train.shape, task.problem(0).truth
        ('density-iris', (112, 4), None)
    """

    table: str = "iris"

    @property
    def name(self) -> str:
        return f"density-{self.table}"

    @property
    def title(self) -> str:
        return f"Density of the {self.table.replace('-', ' ')} table, d = {self.features}"

    @property
    def words(self) -> str:
        return (
            f"{TABLES[self.table][1]} Classes are left out. Uniform noise as wide as a column's rounding is added, so "
            "that there is a density, and columns are divided by their standard deviations. The split is drawn again "
            "for every seed; the held-out negative log-likelihood decides."
        )

    def problem(self, seed: int) -> DensityProblem:
        rng = np.random.default_rng(seed)
        values = np.asarray(TABLES[self.table][0](), dtype=np.float64)
        values = values + resolution(values) * rng.uniform(-0.5, 0.5, size=values.shape)
        values = rng.permutation((values - values.mean(0)) / values.std(0))
        return DensityProblem(values[: self.rows], values[self.rows : self.rows + self.test_rows])


def tasks(options: Options) -> Iterable[DensityTask]:
    """One for each table; three quarters of its rows are fitted on."""
    for table, (load, _) in TABLES.items():
        count, features = load().shape
        test = int(_TEST_SHARE * count)
        sizes = options.sizes(count - test, test)
        yield TableDensity(features=features, table=table, **sizes)
