"""The command line of the benchmarks: list, run, report, compare."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from ot_lift.cli_console import Sentences, interactive

_RESULTS = Path(__file__).resolve().parent / "results"

app = typer.Typer(
    cls=Sentences,
    help="Tasks × methods × seeds: run them, keep a record of each, show and compare the records.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Data = Annotated[Path | None, typer.Option(help="Folder of data that are not part of the project.", file_okay=False)]
Quick = Annotated[bool, typer.Option("--quick", help="Small data and budgets; no results, but a look at everything.")]
Cache = Annotated[
    Path | None,
    typer.Option(
        help="Folder of reference draws, made for posteriors without moments in the project; else there are none.",
        file_okay=False,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(help="Folder of the records; by default benchmarks/results/cells, with --quick .../quick."),
]


@app.command("list")
def list_(data: Data = None, quick: Quick = False) -> None:
    """Show every task, method and experiment, and what is missing for the others."""
    from benchmarks.experiments import find_experiments
    from benchmarks.kinds import KINDS, offers
    from benchmarks.tasks import Options

    found, missing = offers(Options(data, quick))
    for kind in KINDS:
        own = [offer for offer in found if offer.kind is kind]
        typer.echo(f"{kind.name} tasks:")
        for offer in own:
            task = offer.task
            typer.echo(f"  {task.name}: {task.title}; {task.size}, {task.budget_seconds:g} s a fit")
        typer.echo(f"{kind.name} methods:")
        for name in dict.fromkeys(method.name for offer in own for method in offer.methods):
            typer.echo(f"  {name}")
    typer.echo("experiments of the paper:")
    for experiment in find_experiments():
        typer.echo(f"  {experiment.name}: {experiment.title}; seeds {', '.join(map(str, experiment.seeds))}")
    for line in missing:
        typer.echo(f"not here: {line}")


@app.command()
def run(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Tasks, families or kinds of tasks and methods, by default all; or the paper's experiments.",
            metavar="[NAME]…",
        ),
    ] = None,
    data: Data = None,
    cache: Cache = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            help="Of data and fits, with commas; by default 0,1,2, or 0 of long tasks, or the experiment's; quick: 0.",
            metavar="0,1,…",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Cells at the same time; their times are marked. By default 1; on a cluster all; with --quick one a "
            "core, those with a budget aside.",
            min=1,
        ),
    ] = None,
    backend: Annotated[str | None, typer.Option(help="Of joblib: loky (default), threading, ray.")] = None,
    cluster: Annotated[
        str | None, typer.Option(help="A Dask scheduler, whose workers run the cells.", metavar="ADDRESS")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Of every method; by default those of the machine, in an experiment one, with --quick one for cells "
            "that run beside others.",
            min=1,
        ),
    ] = None,
    quick: Quick = False,
    out: Out = None,
    retry: Annotated[bool, typer.Option("--retry", help="Run cells again that failed or ran out of time.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Run every cell again.")] = False,
) -> None:
    """Run the cells that have no record yet."""
    from benchmarks import runner
    from benchmarks.tasks import Options

    if cluster and find_spec("distributed") is None:
        raise typer.BadParameter("Dask is not installed; pip install distributed", param_hint="--cluster")
    folder = _records_folder(out, quick)
    asked = _numbers(seeds) if seeds else None
    cells, missing = runner.asked_cells(names or [], Options(data, quick, cache), seeds=asked, threads=threads)
    plan = runner.Plan.of(cells, folder, retry=retry, again=again)
    for line in missing:
        typer.echo(f"not here: {line}", err=True)
    if plan.outdated:
        typer.echo(f"{plan.outdated} records have other settings; their cells are run again and replaced", err=True)
    try:
        with _told(len(plan.waiting), len(plan.finished)) as tell:
            at_once = jobs or (-1 if cluster or quick else 1)
            records = runner.run(plan, folder, jobs=at_once, backend=backend, cluster=cluster, tell=tell)
    except KeyboardInterrupt:
        typer.echo("interrupted: cells that had ended are kept, the same command goes on from here", err=True)
        raise typer.Exit(130) from None
    bad = sum(record["status"] != "ok" for record in records)
    typer.echo(f"{len(records)} cells run, {bad} of them failed, {len(plan.finished)} were there: {folder}")


@app.command()
def report(
    quick: Quick = False,
    out: Out = None,
    site: Annotated[Path | None, typer.Option(help="Folder of the pages; by default `site` among the records.")] = None,
) -> None:
    """Write the records as a static site."""
    from benchmarks.runner import read_cells
    from benchmarks.site import write_site

    folder = _records_folder(out, quick)
    typer.echo(str(write_site(read_cells(folder), site or folder / "site")))


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="Folder of records, or one record.", metavar="RECORD")],
    after: Annotated[Path, typer.Argument(help="Likewise.", metavar="RECORD")],
) -> None:
    """Say what got better or worse beyond noise; the exit code is 1 if something got worse."""
    from benchmarks.compare_records import compare_records
    from benchmarks.runner import read_cells

    found = compare_records(*(read_cells(place) for place in (before, after)))
    for line in found.notes:
        typer.echo(f"note: {line}", err=True)
    for kind in ("better", "worse"):
        for change in found.of(kind):
            told = f"{change.task} × {change.method}: {change.figure} {change.before} → {change.after}"
            typer.echo(f"{kind}: {told} ({change.seeds} seed{'s' * (change.seeds > 1)})")
    counts = {kind: len(found.of(kind)) for kind in ("better", "worse", "same")}
    typer.echo(f"{counts['better']} better, {counts['worse']} worse, {counts['same']} the same within noise")
    raise typer.Exit(1 if counts["worse"] else 0)


def _records_folder(out: Path | None, quick: bool) -> Path:
    return out or _RESULTS / ("quick" if quick else "cells")


def _numbers(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        found = []
    if not found or min(found) < 0:
        raise typer.BadParameter(f"expected whole numbers of 0 or more with commas, got {text!r}", param_hint="--seeds")
    return list(dict.fromkeys(found))


@contextmanager
def _told(waiting: int, finished: int) -> Iterator[Callable[[Any, dict[str, Any]], None]]:
    """A function to call after every cell: a bar where someone watches, else lines on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    shown: Sequence[Any] = (BarColumn(), MofNCompleteColumn(), TextColumn("cells"), TimeElapsedColumn())
    console = Console(stderr=True) if interactive() else Console(file=sys.stderr, width=1000)
    with Progress(*shown, console=console, disable=not interactive()) as bar:
        task = bar.add_task("cells", total=waiting + finished, completed=finished)

        def tell(cell: Any, record: dict[str, Any]) -> None:
            seconds = f"{record['timing']['wall_seconds']:.1f} s"
            end = seconds if record["status"] == "ok" else f"{record['status']}: {record['reason']}"
            console.print(f"{cell.label}: {end}", markup=False, highlight=False)
            bar.advance(task)

        yield tell
