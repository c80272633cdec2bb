"""What the command line says and how: results on standard output, everything else on standard error."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from ot_lift.errors import ConvergenceError, ConvergenceWarning, DataError, ExtrapolationWarning

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Sentences", "answer", "heard", "interactive", "points_bar", "watched"]


class Sentences(TyperGroup):
    """A group of commands that ends in a sentence where the library raises: exit code 2 for bad input, else 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except DataError as error:
            raise _fail(error, code=2) from error
        except ConvergenceError as error:
            raise _fail(error, code=1) from error


def _fail(error: Exception, *, code: int) -> typer.Exit:
    typer.echo(f"ot-lift: {' '.join(str(error).split())}", err=True)
    return typer.Exit(code)


def interactive() -> bool:
    """Whether someone watches standard error."""
    return sys.stderr.isatty()


def points_bar(chunks: Iterable[np.ndarray], verb: str, *, total: int | None) -> Iterator[np.ndarray]:
    """The chunks, with a bar where someone watches.

    Args:
        chunks: arrays `(k, features)`.
        verb: shown before the bar.
        total: number of rows, if it is known.
    """
    if not interactive():
        yield from chunks
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    shown = (TextColumn(verb), BarColumn(), MofNCompleteColumn(), TextColumn("points"), TimeElapsedColumn())
    with Progress(*shown, console=Console(stderr=True)) as bar:
        task = bar.add_task(verb, total=total)
        for chunk in chunks:
            yield chunk
            bar.advance(task, len(chunk))


@contextmanager
def watched() -> Iterator[Callable[[str], None]]:
    """A function to say what is going on, line by line; where someone watches, the last line spins."""
    if not interactive():
        yield lambda line: typer.echo(line, err=True)
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    shown = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*shown, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        said: list[str] = []

        def tell(line: str) -> None:
            if said:
                console.print(said[-1], markup=False, highlight=False, style="dim")
            said.append(line)
            bar.update(task, description=line)

        yield tell


@contextmanager
def heard() -> Iterator[list[str]]:
    """Collect the warnings of the block as sentences, once each; of those that come with every chunk, the first."""
    sentences: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        for kind in (ConvergenceWarning, ExtrapolationWarning):
            warnings.simplefilter("always", kind)
        yield sentences
    far = [str(one.message) for one in caught if issubclass(one.category, ExtrapolationWarning)]
    rest = [str(one.message) for one in caught if not issubclass(one.category, ExtrapolationWarning)]
    sentences.extend(dict.fromkeys(rest))
    if far:
        sentences.append(far[0] + (f" (and so in {len(far) - 1} more chunks)" if len(far) > 1 else ""))


def answer(summary: dict[str, Any], text: str, warned: list[str], *, as_json: bool) -> None:
    """Print the warnings, and the result as text or as one JSON object.

    Args:
        summary: the result as JSON types.
        text: the same for people.
        warned: sentences.
        as_json: which of the two.
    """
    for sentence in warned:
        typer.echo(f"warning: {sentence}", err=True)
    if as_json:
        from ot_lift.report import json_text

        typer.echo(json_text({**summary, "warnings": warned}))
    else:
        typer.echo(text)
