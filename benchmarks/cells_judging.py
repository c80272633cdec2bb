"""The figures of a map from the images of fresh points, the same for every method."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.neighbors import KNeighborsClassifier

from benchmarks.tasks import Array, Problem
from ot_lift.diagnostics import cosine_similarity, l2_uvp, pushforward_error
from ot_lift.discrete import exact_transport

Labels = npt.NDArray[np.int64]

_PAIRED_POINTS = 1000  # every pair of them is looked at
_EXACT_POINTS = 1000


def monotonicity_violations(source: Array, image: Array) -> float:
    """Share of pairs of points with ⟨T(x) − T(x'), x − x'⟩ < 0; a gradient of a convex function has none.

    Args:
        source: x, `(n, features)`; at most 1,000 of them are used.
        image: T(x), `(n, features)`.

    Returns:
        A number in [0, 1]. Products within rounding of 0 (10⁻⁹ of the largest) do not count.

    Example:
        >>> monotonicity_violations(np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [2.0], [1.0]]))
        0.3333333333333333
    """
    x, y = source[:_PAIRED_POINTS], image[:_PAIRED_POINTS].astype(np.float64)
    x, y = x - x.mean(0), y - y.mean(0)
    gram = y @ x.T
    own = np.diag(gram)
    products = (own[:, None] + own[None, :] - gram - gram.T)[np.triu_indices(len(x), 1)]
    return float((products < -1e-9 * np.abs(products).max(initial=0.0)).mean()) if len(products) else 0.0


def misread(image: Array, target: Array, labels: Labels, target_labels: Labels) -> float:
    """Share of target points that the class of their nearest transported source point gets wrong.

    Args:
        image: Transported source points, `(n, features)`.
        target: Target points, `(m, features)`.
        labels: Classes of the source points, `(n,)`.
        target_labels: Classes of the target points, `(m,)`.

    Example:
        >>> misread(np.array([[0.0], [9.0]]), np.array([[1.0], [2.0]]), np.array([3, 4]), np.array([3, 4]))
        0.5
    """
    classifier = KNeighborsClassifier(n_neighbors=1).fit(image, labels)
    return float((classifier.predict(target) != target_labels).mean())


@dataclass(frozen=True)
class Judge:
    """A problem with what is the same for every method.

    Attributes:
        problem: the data.
        seed: of subsamples and directions.
        exact: W2² of `few` test points by POT's exact solver, and its standard error.
    """

    problem: Problem
    seed: int
    exact: tuple[float, float]

    @classmethod
    def of(cls, problem: Problem, seed: int) -> Judge:
        """Solve the exact problem once."""
        exact = exact_transport(problem.test_source[:_EXACT_POINTS], problem.test_target[:_EXACT_POINTS])
        return cls(problem, seed, (exact.value, exact.error))

    def figures(self, image: Array) -> dict[str, float]:
        """All figures that the images `(k, features)` of the test points give, by their names in a record.

        Energy distance, sliced W2 and their null levels are those of `ot_lift.diagnostics.pushforward_error`.
        `transport_cost` is the mean ‖x − T(x)‖² over the points that `emd_w2_squared` is solved on.
        """
        problem = self.problem
        generator = torch.Generator().manual_seed(self.seed)
        error = pushforward_error(image, problem.test_target, generator=generator)
        few = slice(_EXACT_POINTS)
        costs = np.square(image[few].astype(np.float64) - problem.test_source[few]).sum(1)
        found = {
            "energy": error.energy,
            "energy_null": error.energy_null,
            "sliced_w2": error.sliced_w2,
            "sliced_w2_null": error.sliced_w2_null,
            "monotonicity_violations": monotonicity_violations(problem.test_source, image),
            "transport_cost": float(costs.mean()),
            "transport_cost_error": float(costs.std(ddof=1) / np.sqrt(len(costs))),
            "emd_w2_squared": self.exact[0],
            "emd_w2_squared_error": self.exact[1],
        }
        if problem.truth is not None:
            found |= {
                "l2_uvp": l2_uvp(image, problem.truth, problem.truth),
                "cosine": cosine_similarity(problem.test_source, image, problem.truth),
                "true_cost": float(np.square(problem.truth[few] - problem.test_source[few]).sum(1).mean()),
            }
        if problem.labels is not None:
            found["misread"] = misread(image, problem.test_target, *problem.labels)
        return found
