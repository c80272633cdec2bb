"""The wheel holds the library alone, and the project's own files agree with each other."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ot_lift

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OWN_FOLDERS = ("ot_lift", "posteriors", "benchmarks", "examples", "tests", "docs", ".ci")


def requirement_names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(one).name) for one in requirements}


def own_files() -> Iterator[Path]:
    """Every text file that the project wrote."""
    yield from (
        path for path in ROOT.iterdir() if path.is_file() and path.suffix in {"", ".md", ".toml", ".txt", ".cff"}
    )
    for folder in OWN_FOLDERS:
        paths = (ROOT / folder).rglob("*")
        yield from (p for p in paths if p.is_file() and p.suffix in {"", ".py", ".md", ".json", ".html", ".j2"})


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built by the backend itself: no network, no new environment."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_library_alone(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert {name.split("/")[0] for name in names} == {"ot_lift", f"ot_lift-{PROJECT['version']}.dist-info"}
    paths = (path for path in (ROOT / "ot_lift").rglob("*") if path.is_file() and path.suffix != ".pyc")
    assert {str(path.relative_to(ROOT)) for path in paths} <= names  # modules, and templates beside them
    assert "ot_lift/py.typed" in names
    assert not [name for name in names if "__pycache__" in name]


def test_the_wheel_carries_the_command_and_the_licence(wheel: zipfile.ZipFile) -> None:
    information = f"ot_lift-{PROJECT['version']}.dist-info"
    assert "ot-lift = ot_lift.cli:app" in wheel.read(f"{information}/entry_points.txt").decode()
    assert wheel.read(f"{information}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()


def test_the_core_requires_exactly_what_the_library_imports() -> None:
    """An import that only an extra provides belongs to the module that needs the extra, and to no other."""
    top_level = {
        name.split(".")[0]
        for path in (ROOT / "ot_lift").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    third_party = top_level - set(sys.stdlib_module_names) - {"ot_lift"}
    providers = packages_distributions()
    imported = {canonicalize_name(distribution) for name in third_party for distribution in providers[name]}
    extras = requirement_names(PROJECT["optional-dependencies"]["posteriors"]) | {"jax", "jaxlib"}
    core = requirement_names(PROJECT["dependencies"])
    assert imported - extras <= core
    # scikit-learn's photographs are read by pillow; POT is imported by name, out of sight of a parser
    assert core - imported == {"pillow", "pot"}


def test_all_is_every_extra_but_the_peers() -> None:
    extras = PROJECT["optional-dependencies"]
    assert set(extras) == {"posteriors", "peers", "dev", "all"}
    assert extras["all"] == ["ot-lift[posteriors,dev]"]


def test_every_requirement_is_pinned_within_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {
        canonicalize_name(Requirement(line).name): line.split("==")[1] for line in lines if not line.startswith("#")
    }
    ranges = PROJECT["dependencies"] + [one for group in PROJECT["optional-dependencies"].values() for one in group]
    for requirement in map(Requirement, ranges):
        if requirement.name != "ot-lift":
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), str(requirement)


def test_the_version_is_the_same_everywhere() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\nversion: {PROJECT['version']}\n" in citation
    assert re.search(r"^## (\S+)", changes, flags=re.MULTILINE).group(1) == PROJECT["version"]


def test_no_file_speaks_of_a_machine() -> None:
    """No absolute path of somebody's machine, no package index of somebody's network."""
    pattern = re.compile(r"(?<![\w./])/(?:home|root|work|opt|Users)/|--(?:extra-)?index-url|--find-links")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in own_files()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found


def public_methods(owner: type) -> Iterator[str]:
    """What a class itself defines for its users, less overrides of other libraries' methods."""
    foreign = {name for base in owner.__mro__ if not base.__module__.startswith("ot_lift") for name in vars(base)}
    yield from (
        name for name in vars(owner).keys() - foreign if not name.startswith("_") and callable(getattr(owner, name))
    )


def public_objects() -> Iterator[tuple[str, object]]:
    """Public classes, functions and methods of every module, each where it is defined."""
    for module_name in (module.name for module in pkgutil.iter_modules(ot_lift.__path__, "ot_lift.")):
        for name, value in vars(importlib.import_module(module_name)).items():
            if name.startswith("_") or getattr(value, "__module__", None) != module_name:
                continue
            if inspect.isclass(value):
                yield f"{module_name}.{name}", value
                yield from ((f"{module_name}.{name}.{one}", getattr(value, one)) for one in public_methods(value))
            elif inspect.isfunction(value):
                yield f"{module_name}.{name}", value


def test_every_public_name_is_documented() -> None:
    """By its own docstring, or by that of what it overrides."""
    assert not [name for name, value in public_objects() if not inspect.getdoc(value)]
