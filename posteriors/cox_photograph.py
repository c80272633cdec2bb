"""Log-Gaussian Cox process of the bright points of a photograph, counted on a grid of 16 × 16 cells: d = 256."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import maximum_filter, uniform_filter
from sklearn.datasets import load_sample_image

from posteriors.cox import cox_process
from posteriors.target import Posterior

_SIDE, _REACH = 16, 9  # cells a side; pixels of the neighbourhood in which a bright point is the brightest


def build() -> Posterior:
    """The target. A bright point is the brightest pixel of its neighbourhood in the photograph, slightly blurred."""
    grey = uniform_filter(load_sample_image("china.jpg").astype(np.float64).mean(2), 3)
    rows, columns = np.nonzero((grey == maximum_filter(grey, _REACH)) & (grey < 250.0))
    height, width = grey.shape
    counts = np.zeros((_SIDE, _SIDE))
    np.add.at(counts, (rows * _SIDE // height, columns * _SIDE // width), 1.0)
    return cox_process("cox_photograph", counts, citation="Photograph china.jpg by D. Hodgson, shipped by scikit-learn")
