"""Imports inside the library go one way, in the order that the layers below give."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A module imports from layers before its own, or from beside it as long as no circle arises.
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "errors",
        "data",
        "rows",
        "splits",
        "standardizer",
        "batches",
        "sides",
        "io",
        "tables",
        "activations",
        "initialisers",
        "positivity",
    ),
    ("hessians", "potentials"),
    ("constrained", "lift", "conjugate", "logdet", "partial_icnn"),
    ("maps",),
    ("losses", "discrete", "distances", "diagnostics", "bounds", "certificate", "two_sample", "calibration"),
    ("objectives", "starts", "training", "likelihood", "estimators"),
    ("brenier", "flows", "densities", "posterior", "amortized"),
    (
        "numpyro",
        *("methods", "peers", "isolation", "measuring", "ranking", "comparison", "compare"),
        *("report", "demo"),
    ),
    ("cli", "__main__"),
)
LAYER = {module: depth for depth, modules in enumerate(LAYERS) for module in modules}


def layer(module: str) -> int:
    """The depth of a module's layer; a part of a module is beside it, as `report_plots` is beside `report`."""
    place = LAYER.get(module, LAYER.get(module.partition("_")[0]))
    assert place is not None, f"ot_lift.{module} has no place in LAYERS: give it one"
    return place


def imported_names(source: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of all that a source imports, at whatever depth; `from a import b` is a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def imports_within(path: Path) -> dict[str, int]:
    """The library's modules that a file imports, each with the line of its first import."""
    found: dict[str, int] = {}
    for line, name in imported_names(path.read_text(encoding="utf-8")):
        parts = name.split(".")
        if parts[0] == "ot_lift":
            found.setdefault(parts[1] if len(parts) > 1 else "__init__", line)
    return found


MODULES = sorted(path for path in (ROOT / "ot_lift").glob("*.py") if path.name != "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_imports_only_from_its_own_layer_and_those_before(path: Path) -> None:
    own = layer(path.stem)
    for module, line in imports_within(path).items():
        assert layer(module) <= own, f"{path.name}:{line} imports {module}, of a later layer"


def test_no_imports_go_in_a_circle() -> None:
    order = graphlib.TopologicalSorter({path.stem: set(imports_within(path)) for path in MODULES})
    found = list(order.static_order())  # raises CycleError, which names the circle
    assert {path.stem for path in MODULES} <= set(found)


@pytest.mark.parametrize(
    ("package", "others"),
    [
        ("ot_lift", {"posteriors", "benchmarks", "examples", "tests"}),
        ("posteriors", {"ot_lift", "benchmarks", "examples", "tests"}),
    ],
)
def test_a_package_stands_without_the_others(package: str, others: set[str]) -> None:
    paths = sorted((ROOT / package).rglob("*.py"))
    if package == "ot_lift":
        assert paths
    for path in paths:
        for line, name in imported_names(path.read_text(encoding="utf-8")):
            assert name.split(".")[0] not in others, f"{path.relative_to(ROOT)}:{line} imports {name}"


def test_the_walk_sees_imports_at_every_depth() -> None:
    source = "import a.b\ndef f():\n    from c import d as e\n    from . import g\n"
    assert list(imported_names(source)) == [(1, "a.b"), (3, "c.d"), (4, "..g")]
