"""Draws as ArviZ takes them, of either generation."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ot_lift.posterior_arviz import to_inference_data

SITES = {"a": np.arange(8.0), "b": np.zeros((8, 3))}


def test_from_1_0_on_the_groups_are_one_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arviz", SimpleNamespace(__version__="1.2.0", from_dict=lambda groups: groups))
    groups: Any = to_inference_data(SITES, {"y": np.zeros((8, 5))}, chains=2)
    assert {name: value.shape for name, value in groups["posterior"].items()} == {"a": (2, 4), "b": (2, 4, 3)}
    assert groups["log_likelihood"]["y"].shape == (2, 4, 5)


def test_before_1_0_they_are_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arviz", SimpleNamespace(__version__="0.23.4", from_dict=lambda **groups: groups))
    groups: Any = to_inference_data(SITES, {}, chains=4)
    assert set(groups) == {"posterior"}
    assert groups["posterior"]["a"].tolist() == [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]]


def test_without_arviz_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ImportError, match=r"pip install 'ot-lift\[posteriors\]'"):
        to_inference_data(SITES, {}, chains=2)
