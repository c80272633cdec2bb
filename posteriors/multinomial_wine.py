"""Multinomial logistic regression of the cultivar on 13 analyses of 178 wines: d = 28."""

from __future__ import annotations

from sklearn.datasets import load_wine

from posteriors.multinomial import multinomial
from posteriors.regression import standardised
from posteriors.target import Posterior


def build() -> Posterior:
    """The target."""
    data = load_wine()
    citation = "Aeberhard & Forina 1992, Wine, UCI; as shipped by scikit-learn"
    return multinomial("multinomial_wine", standardised(data.data), data.target, citation=citation)
