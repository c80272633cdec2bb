"""Whether a classifier can tell two samples apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, clone
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ot_lift.distances import float64_pair
from ot_lift.errors import DataError


@dataclass(frozen=True)
class TwoSampleAccuracy:
    """How well a classifier tells two samples apart.

    Attributes:
        accuracy: cross-validated; one half: not at all.
        standard_error: of the accuracy, if the samples are of one law.
    """

    accuracy: float
    standard_error: float


def c2st(
    X: Any, Y: Any, *, classifier: ClassifierMixin | None = None, folds: int = 5, random_state: int = 0
) -> TwoSampleAccuracy:
    """Classifier two-sample test: cross-validated accuracy at telling X from Y (Lopez-Paz & Oquab 2017).

    Args:
        X: ``(n, d)``.
        Y: ``(n, d)``: as many points, so that one half is the level of chance.
        classifier: any of scikit-learn's (default: a network of two layers of 10 d units on standardised points, as in
            Lueckmann et al. 2021).
        folds: of the cross-validation.
        random_state: of the folds and of the default classifier.

    Raises:
        DataError: if the samples differ in size or in columns.

    References:
        Lopez-Paz & Oquab 2017 (arXiv 1610.06545); Lueckmann, Boelts, Greenberg, Gonçalves & Macke 2021
        (arXiv 2101.04653).

    Example:
        >>> from sklearn.neighbors import KNeighborsClassifier
        >>> x = np.linspace(0, 1, 50)[:, None]
        >>> c2st(x, x + 2, classifier=KNeighborsClassifier()).accuracy
        1.0
    """
    first, second = (points.numpy() for points in float64_pair(X, Y))
    if len(first) != len(second):
        raise DataError(
            f"expected two samples of one size, got {len(first)} and {len(second)} rows: cut the longer one"
        )
    if classifier is None:
        widths = (10 * first.shape[1],) * 2
        network = MLPClassifier(widths, max_iter=300, early_stopping=True, random_state=random_state)
        classifier = make_pipeline(StandardScaler(), network)
    points, labels = np.concatenate([first, second]), np.repeat([0, 1], len(first))
    split = StratifiedKFold(folds, shuffle=True, random_state=random_state)
    accuracy = cross_val_score(clone(classifier), points, labels, cv=split, scoring="accuracy", n_jobs=1)
    return TwoSampleAccuracy(float(accuracy.mean()), 0.5 / math.sqrt(len(points)))
