"""What every command shares: the application, its common arguments, and how a run is watched."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

import crossroads

if TYPE_CHECKING:
    from crossroads.report.console import ConsoleWatcher, NotesOnly

INTERRUPTED = 130
"""The exit code after Ctrl-C."""

app = typer.Typer(
    name="crossroads",
    help="Labelled images in, a tested image classifier out.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Data = Annotated[
    Path,
    typer.Argument(metavar="DATA", help="Labelled images: a folder, an archive, CSV, pickle, .npz or Parquet.", show_default=False),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder that `fit` wrote.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for a program to read.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show notes and the result only, no progress.")]
ClassNames = Annotated[
    Optional[Path], typer.Option(help="A file that names integer labels, such as lines of 14,Stop.", show_default=False)
]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first image that cannot be read.")]
StrictSplit = Annotated[
    bool, typer.Option("--strict", help="Refuse images that cannot be read, and classes too small to be split.")
]


def _version(asked: bool) -> None:
    if asked:
        print(f"crossroads {crossroads.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


def watching(*, json: bool, quiet: bool) -> AbstractContextManager[ConsoleWatcher | NotesOnly]:
    """Progress on the standard output, or on the error stream where the output is for a program; `quiet` shows notes only."""
    from crossroads.report.console import ConsoleWatcher, NotesOnly

    return nullcontext(NotesOnly(sys.stderr)) if quiet else ConsoleWatcher(sys.stderr if json else sys.stdout)
