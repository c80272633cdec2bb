"""`ot-lift posterior`: fit a map to a named posterior or a NumPyro model, judge it, and write draws and a report."""

from __future__ import annotations

import importlib
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ot_lift.cli_arguments import Json, MaxSeconds, MaxSteps, Seed
from ot_lift.cli_console import answer, heard, interactive, watched
from ot_lift.errors import DataError

if TYPE_CHECKING:
    from ot_lift.numpyro import NumPyroTarget
    from ot_lift.posterior import PosteriorMap
    from ot_lift.posterior_latent import Direction
    from ot_lift.report_posterior import PosteriorRun

__all__ = ["find_target", "posterior", "read_arguments"]

_EXTRA = "install it with pip install 'ot-lift[posteriors]'"


def posterior(
    name: Annotated[
        str, typer.Argument(help="A name of the catalogue, or a NumPyro model as module:model.", metavar="NAME")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the map, the draws and the report.", metavar="DIR")],
    data: Annotated[
        Path | None,
        typer.Option(help="The model's keyword arguments: .json, .npz, .csv or .parquet, by name.", metavar="FILE"),
    ] = None,
    draws: Annotated[int, typer.Option(help="Draws to write; a multiple of 4.", min=4)] = 4000,
    direction: Annotated[str, typer.Option(help="forward or inverse: which way is the gradient.")] = "forward",
    reference: Annotated[bool, typer.Option("--reference", help="Run NUTS too, and set the map beside it.")] = False,
    seed: Seed = 0,
    max_steps: MaxSteps = None,
    max_seconds: MaxSeconds = None,
    as_json: Json = False,
) -> None:
    """Fit a transport map to a Bayesian posterior, say whether to believe it, and write draws.

    NAME is one of the catalogue `posteriors`, which stands beside the library in its repository, or `module:model`,
    a NumPyro model in a module that can be imported from here. DIR gets map/, draws.nc (for ArviZ), draws.parquet,
    report.html and report.json.

    Example:
        $ ot-lift posterior linear_diabetes --out posterior --reference
    """
    from ot_lift.posterior import PosteriorMap
    from ot_lift.report_posterior import check_posterior_folder, write_posterior_report

    place = check_posterior_folder(out)
    if draws % 4:
        raise DataError(f"expected --draws to be a multiple of 4 chains, got {draws}")
    if direction not in ("forward", "inverse"):
        raise DataError(f"expected --direction forward or inverse, got {direction!r}")
    target = find_target(name, data)
    budget: dict[str, Any] = {} if max_steps is None else {"max_steps": max_steps}
    with heard() as warned, watched() as tell:
        tell(f"fitting a map to {name}, d = {target.dim}")
        model = PosteriorMap(
            **budget,
            direction=cast("Direction", direction),
            max_seconds=max_seconds,
            random_state=seed,
            progress=interactive(),
        ).fit(target)
        run = _draw(model, target, name=name, draws=draws, seed=seed, reference=reference, tell=tell)
        tell("writing")
        place.mkdir(parents=True, exist_ok=True)
        model.save(place / "map")
        _write_draws(model.to_arviz(draws, random_state=seed), target, place)
        page = write_posterior_report(run, place)
    summary = {"command": "posterior", "out": str(place), "report": str(page), **run.record()}
    text = "\n".join([*run.sentences(), "", f"Report: {page}", f"Open it: {page.as_uri()}"])
    answer(summary, text, list(dict.fromkeys(warned)), as_json=as_json)


def _draw(
    model: PosteriorMap,
    target: NumPyroTarget,
    *,
    name: str,
    draws: int,
    seed: int,
    reference: bool,
    tell: Callable[[str], None],
) -> PosteriorRun:
    """Draws of the fitted map, timed, and those of NUTS if they are wanted."""
    from ot_lift.numpyro_nuts import run_nuts
    from ot_lift.report_posterior import PosteriorRun

    tell("drawing")
    began = time.monotonic()
    sites = target.constrain(model.sample(draws, random_state=seed))
    draw_seconds = time.monotonic() - began
    if reference:
        tell("running NUTS")
    assert model.evidence_ is not None  # for the type checker: a fit to a target has it
    return PosteriorRun(
        name=name,
        sites=sites,
        diagnosis=model.diagnosis_.to_dict(),
        evidence=model.evidence_.to_dict(),
        words=str(model.diagnosis_),
        fit_seconds=model.fit_seconds_,
        draw_seconds=draw_seconds,
        reference=run_nuts(target, seed=seed) if reference else None,
    )


def _write_draws(data: Any, target: NumPyroTarget, place: Path) -> None:
    """The draws for ArviZ, and the same as a table."""
    import numpy as np

    from ot_lift.report_posterior import columns_by_label
    from ot_lift.tables_write import write_table

    partial = place / f".draws.{secrets.token_hex(8)}.nc"
    try:
        data.to_netcdf(partial)
        os.replace(partial, place / "draws.nc")  # whole or not at all
    finally:
        partial.unlink(missing_ok=True)
    group = data["posterior"]
    sites = {name: np.asarray(group[name]).reshape(-1, *group[name].shape[2:]) for name in target.sites}
    columns = columns_by_label(sites)
    write_table(place / "draws.parquet", [np.column_stack(list(columns.values()))], columns=list(columns))


def find_target(name: str, data: Path | None) -> NumPyroTarget:
    """The target of a name of the catalogue, or of ``module:model`` with the arguments in a file.

    Raises:
        DataError: if there is no such name, module or model, or the extra is not installed. An error of the model
            itself is passed on as it is.
    """
    from ot_lift.numpyro import from_numpyro

    arguments = {} if data is None else read_arguments(data)
    module_name, colon, attribute = name.partition(":")
    try:
        if colon:
            with _importable(Path.cwd()):
                model = getattr(_module(module_name), attribute, None)
            if not callable(model):
                raise DataError(f"expected a function {attribute!r} in {module_name}, got {model!r}")
            return from_numpyro(model, **arguments)
        if data is not None:
            raise DataError(f"expected --data with module:model only, got it with {name!r}, which has its own data")
        catalogue = _catalogue()
        if name not in catalogue.names():
            raise DataError(f"expected module:model or one of {', '.join(catalogue.names())}, got {name!r}")
        entry = catalogue.load(name)
        return from_numpyro(entry.model, *entry.arguments)
    except ImportError as error:
        if getattr(error, "name", None) in ("numpyro", "jax", "arviz") or "ot-lift[posteriors]" in str(error):
            raise DataError(f"expected NumPyro and ArviZ, got {error}: {_EXTRA}") from error
        raise


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise  # a module that the user's own module lacks: its own error says which
        raise DataError(f"expected a module {name!r} here or among the installed ones, got none") from error


def _catalogue() -> Any:
    try:
        return importlib.import_module("posteriors")
    except ModuleNotFoundError as error:
        raise DataError(
            "expected the catalogue `posteriors`, which stands beside the library in its repository, got none: run "
            "this there, or name a model as module:model"
        ) from error


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Modules of a folder can be imported."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def read_arguments(path: Path) -> dict[str, Any]:
    """Keyword arguments of a model from a file: lists become arrays of float64 or integers, columns too.

    Raises:
        DataError: if the file is absent, of another kind, or cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     file = Path(place, "data.json")
        ...     _ = file.write_text('{"y": [1.0, 2.0], "scale": 3.0}')
        ...     read_arguments(file)
        {'y': array([1., 2.]), 'scale': 3.0}
    """
    import numpy as np
    import pandas as pd

    if not path.is_file():
        raise DataError(f"expected a file of data at {path}, got none")
    try:
        if path.suffix == ".json":
            values = json.loads(path.read_text(encoding="utf-8"))
            return {name: np.asarray(value) if isinstance(value, list) else value for name, value in values.items()}
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as held:
                return dict(held)
        if path.suffix in (".csv", ".parquet"):
            frame = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
            return {str(name): frame[name].to_numpy() for name in frame.columns}
    except (ValueError, OSError, AttributeError) as error:
        raise DataError(f"expected {path} to hold arguments by name, got {error}") from error
    raise DataError(f"expected a file that ends in .json, .npz, .csv or .parquet, got {path.name!r}")
