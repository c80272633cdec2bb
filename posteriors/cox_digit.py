"""Log-Gaussian Cox process of the dark pixels of one handwritten digit, counted on a grid of 8 × 8 cells: d = 64."""

from __future__ import annotations

from sklearn.datasets import load_digits

from posteriors.cox import cox_process
from posteriors.target import Posterior


def build() -> Posterior:
    """The target. The data set's images are such counts, of the 4 × 4 pixels in every cell of a bitmap."""
    citation = "Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits, UCI; as shipped by scikit-learn"
    return cox_process("cox_digit", load_digits().images[0], citation=citation)
