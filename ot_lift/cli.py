"""The command line, `ot-lift`: fit, transport, invert, compare, demo, posterior.

Bad input ends with one sentence on standard error and exit code 2, a numerical failure with exit code 1. Results go
to standard output (one JSON object with `--json`), progress and warnings to standard error. What a command does not
need is not imported, so that `--help` answers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ot_lift.cli_arguments import (
    Columns,
    Device,
    Json,
    MaxSeconds,
    MaxSteps,
    Seed,
    Source,
    Target,
    checkpoint_folder,
    checkpoints_at,
    known_device,
    known_methods,
    listed,
    open_pair,
    remove_checkpoints,
    table_rows,
)
from ot_lift.cli_console import Sentences, answer, heard, interactive, points_bar, watched
from ot_lift.cli_posterior import posterior
from ot_lift.errors import DataError

if TYPE_CHECKING:
    import numpy as np


__all__ = ["app"]

_HELP = """
Optimal transport maps between two datasets: fit once, apply to new points, invert exactly, know how good it is.

A dataset is a file of numbers, one row per point: CSV, Parquet, .npy or .npz, told apart by the suffix.

Start with the demo, which needs no data of yours:

    $ ot-lift demo

With two files of your own that have the same columns:

    $ ot-lift fit source.csv target.csv --out map\n
    $ ot-lift transport map new_source.csv --out moved.csv\n
    $ ot-lift invert map moved.csv --out back.csv\n
    $ ot-lift compare source.csv target.csv --out report
"""


app = typer.Typer(
    name="ot-lift",
    cls=Sentences,
    help=_HELP,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        number = version("ot-lift")
    except PackageNotFoundError:  # a source tree that was never installed
        number = "0+unknown"
    typer.echo(f"ot-lift {number}")
    raise typer.Exit


@app.callback()
def main(
    show_version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options before the command."""


# ------------------------------------------------------------------------------------------ commands
@app.command()
def fit(
    source: Source,
    target: Target,
    out: Annotated[Path, typer.Option(help="Folder for the fitted map.", metavar="MAP")],
    columns: Columns = None,
    seed: Seed = 0,
    device: Device = None,
    max_steps: MaxSteps = None,
    max_seconds: MaxSeconds = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a fit that was cut off.")] = False,
    as_json: Json = False,
) -> None:
    """Fit the map that pushes SOURCE onto TARGET.

    Afterwards it shows the certificate: what points that the fit never saw say about the map. A fit that is cut off
    leaves checkpoints beside MAP; the same command with `--resume` goes on from them.

    Example:
        $ ot-lift fit source.csv target.csv --out map --seed 1
    """
    from ot_lift.brenier import BrenierMap
    from ot_lift.report_places import check_map_folder
    from ot_lift.report_words import ending

    check_map_folder(out)
    checkpoints = checkpoint_folder(out, resume=resume)
    tables = open_pair(source, target, columns)
    budget: dict[str, Any] = {} if max_steps is None else {"max_steps": max_steps}
    model = BrenierMap(
        **budget, max_seconds=max_seconds, random_state=seed, device=known_device(device), progress=interactive()
    )
    with heard() as warned, checkpoints_at(checkpoints):
        model.fit(*map(table_rows, tables), resume=checkpoints)
    model.save(out)
    if model.stop_reason_ != "interrupted":
        remove_checkpoints(checkpoints)
    elif checkpoints.exists():
        warned.append(f"the same command with --resume goes on from {checkpoints}")
    summary = {
        "command": "fit",
        "map": str(out),
        "features": model.n_features_in_,
        "steps": int(model.history_[-1]["step"]),
        "fit_seconds": model.fit_seconds_,
        "stop_reason": model.stop_reason_,
        "used_network": model.used_network_,
        "certificate": model.certificate_.to_dict(),
    }
    text = (
        f"Fitted in {model.fit_seconds_:.1f} s: {summary['steps']} steps, ended by {ending(model.stop_reason_)}"
        f"{'' if model.used_network_ else '; the map between Gaussians was not beaten and is kept'}.\n\n"
        f"{model.certificate_}\n\nSaved to {out}. Next: ot-lift transport {out} {source} --out moved{source.suffix}"
    )
    answer(summary, text, warned, as_json=as_json)


@app.command()
def transport(
    fitted: Annotated[Path, typer.Argument(help="Folder that `ot-lift fit` wrote.", metavar="MAP")],
    points: Annotated[Path, typer.Argument(help="Points of the source's kind.", metavar="X")],
    out: Annotated[Path, typer.Option(help="File for the transported points.", metavar="Y")],
    columns: Columns = None,
    as_json: Json = False,
) -> None:
    """Move points X by a fitted MAP; files larger than memory are streamed.

    X has the columns of the fit, in the same order. The format of Y may differ from that of X.

    Example:
        $ ot-lift transport map new_source.parquet --out moved.csv
    """
    _apply("transport", fitted, points, out, columns, as_json=as_json)


@app.command()
def invert(
    fitted: Annotated[Path, typer.Argument(help="Folder that `ot-lift fit` wrote.", metavar="MAP")],
    points: Annotated[Path, typer.Argument(help="Points of the target's kind.", metavar="Y")],
    out: Annotated[Path, typer.Option(help="File for the points that MAP sends to Y.", metavar="X")],
    columns: Columns = None,
    as_json: Json = False,
) -> None:
    """Move points Y back by the exact inverse of a fitted MAP; files larger than memory are streamed.

    Example:
        $ ot-lift invert map moved.csv --out back.csv
    """
    _apply("invert", fitted, points, out, columns, as_json=as_json)


@app.command()
def compare(
    source: Source,
    target: Target,
    out: Annotated[Path, typer.Option(help="Folder for the report.", metavar="REPORT")] = Path("ot-lift-report"),
    columns: Columns = None,
    methods: Annotated[
        str | None,
        typer.Option(help="Methods to set beside ot-lift, by name: linear,EMD,… By default all.", metavar="A,B,…"),
    ] = None,
    held_out: Annotated[float, typer.Option(help="Share of both files that is held out to judge.")] = 0.2,
    seed: Seed = 0,
    device: Device = None,
    max_steps: MaxSteps = None,
    max_seconds: MaxSeconds = None,
    as_json: Json = False,
) -> None:
    """Set ot-lift beside POT's maps on the same held-out points, and write a report.

    The methods are: identity, linear (between Gaussians), EMD, Sinkhorn, MappingTransport and ot-lift. REPORT gets a
    page for the browser (report.html), the same in Markdown, JSON and CSV, and the plots as PNG.
    `--max-seconds` limits every fit; a method that cannot keep it is stopped and shown as failed.

    Example:
        $ ot-lift compare source.csv target.csv --out report --max-seconds 120
    """
    from ot_lift.compare import compare as run
    from ot_lift.report import write_report
    from ot_lift.report_places import check_report_folder
    from ot_lift.report_words import headline

    check_report_folder(out)
    chosen = known_methods(listed(methods), {"max_steps": max_steps, "device": known_device(device)})
    tables = open_pair(source, target, columns)
    with heard() as warned, watched() as tell:
        x, y = map(table_rows, tables)
        found = run(x, y, methods=chosen, held_out=held_out, random_state=seed, max_seconds=max_seconds, progress=tell)
        tell("writing the report")
        page = write_report(
            found,
            out,
            title=f"From {source.name} to {target.name}",
            introduction=[
                f"Maps that push {source.name} ({found.n_source:,} points) onto {target.name} ({found.n_target:,} "
                f"points) in {found.features} columns, judged on points that no method saw."
            ],
            columns=tables[0].columns,
            ours=chosen[-1].name,
        )
    sentences = headline(found, ours=chosen[-1].name)
    summary = {"command": "compare", **_where(page), "headline": sentences, "comparison": found.to_dict()}
    answer(summary, _told(sentences, page), warned, as_json=as_json)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report and the map.", metavar="FOLDER")] = Path(
        "ot-lift-demo"
    ),
    pixels: Annotated[int, typer.Option(help="Pixels of either photograph to fit on.", min=50)] = 20_000,
    seed: Seed = 0,
    device: Device = None,
    max_steps: MaxSteps = None,
    max_seconds: MaxSeconds = None,
    as_json: Json = False,
) -> None:
    """Colour transfer between two photographs, beside POT's maps: a tour that needs no data of yours.

    Fits on a sample of pixels, recolours every pixel, takes the colours back by the exact inverse, fits a small
    Bayesian posterior (beside NUTS where NumPyro is installed), and ends with a report for the browser. Takes a few
    minutes on two cores.

    Example:
        $ ot-lift demo --out ot-lift-demo
    """
    from ot_lift.demo import colour_transfer
    from ot_lift.report_words import headline

    budget: dict[str, Any] = {} if max_steps is None else {"max_steps": max_steps}
    with heard() as warned, watched() as tell:
        page, found, facts = colour_transfer(
            out, pixels=pixels, seed=seed, device=known_device(device), max_seconds=max_seconds, tell=tell, **budget
        )
    sentences = [*headline(found, ours="ot-lift"), *(f"{name}: {value}." for name, value in facts.items())]
    summary = {
        "command": "demo",
        **_where(page),
        "map": str(page.parent / "map"),
        "headline": sentences,
        "facts": facts,
        "comparison": found.to_dict(),
    }
    answer(summary, _told(sentences, page), warned, as_json=as_json)


app.command()(posterior)


def _where(page: Path) -> dict[str, str]:
    return {"report": str(page), "link": page.as_uri()}


def _told(sentences: list[str], page: Path) -> str:
    return "\n".join([*(f"- {sentence}" for sentence in sentences), "", f"Report: {page}", f"Open it: {page.as_uri()}"])


def _apply(verb: str, fitted: Path, points: Path, out: Path, columns: str | None, *, as_json: bool) -> None:
    """Stream the rows of a file through a map into another file."""
    from ot_lift.brenier import BrenierMap
    from ot_lift.tables import open_table
    from ot_lift.tables_write import write_table

    model = BrenierMap.load(fitted)
    table = open_table(points, columns=listed(columns))
    if table.features != model.n_features_in_:
        raise DataError(
            f"expected {model.n_features_in_} columns in {points}, as the map has, got {table.features}: choose them "
            "with --columns"
        )
    move: Callable[[Any], Any] = getattr(model, verb)
    rows = 0

    def moved() -> Iterator[np.ndarray]:
        nonlocal rows
        for chunk in points_bar(table.chunks(), verb, total=table.rows):
            rows += len(chunk)
            yield move(chunk)

    with heard() as warned:
        write_table(out, moved(), columns=table.columns)
    summary = {"command": verb, "map": str(fitted), "out": str(out), "rows": rows, "features": table.features}
    done = "Transported" if verb == "transport" else "Inverted"
    answer(summary, f"{done} {rows:,} points of {points} into {out}.", warned, as_json=as_json)


if __name__ == "__main__":
    app()
