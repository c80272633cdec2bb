"""Multinomial logistic regression of the digit on a 4 × 4 image of it, 1,797 of them: d = 153."""

from __future__ import annotations

from sklearn.datasets import load_digits

from posteriors.multinomial import multinomial
from posteriors.regression import standardised
from posteriors.target import Posterior


def build() -> Posterior:
    """The target. The 8 × 8 images are averaged over blocks of 2 × 2."""
    data = load_digits()
    blocks = data.images.reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16)
    citation = "Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits, UCI; as shipped by scikit-learn"
    return multinomial("multinomial_digits", standardised(blocks), data.target, citation=citation)
