"""What every doctest and test of the project needs to know before it is collected."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

# Modules whose doctests need an extra.
_NEED = {"ot_lift.numpyro": "numpyro", "ot_lift.posterior_arviz": "arviz", "ot_lift.posterior_jax": "numpyro"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip doctests of what the extra `posteriors` provides where it is not installed."""
    for item in items:
        module = item.name.rpartition(".")[0] if isinstance(item, pytest.DoctestItem) else ""
        needed = next((package for name, package in _NEED.items() if f"{module}.".startswith(f"{name}.")), None)
        if needed and find_spec(needed) is None:
            item.add_marker(pytest.mark.skip(reason="needs the extra `posteriors`: pip install 'ot-lift[posteriors]'"))
