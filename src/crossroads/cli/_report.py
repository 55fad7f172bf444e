"""Defines the commands that show finished runs: report, compare and info."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from crossroads.cli._app import ClassNames, Json, PlainCommand, Quiet, Run, app, starting, watching


@app.command(cls=PlainCommand)
def report(
    run: Run,
    data: Annotated[
        Optional[Path],
        typer.Argument(
            metavar="DATA", help="Labelled images to report on; by default, those that the run was scored on.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Optional[Path],
        typer.Option(
            metavar="FILE",
            help="Path of the HTML file. [default: report.html, in RUN or, with DATA, in the current folder]",
            show_default=False,
        ),
    ] = None,
    class_names: ClassNames = None,
    no_thumbnails: Annotated[bool, typer.Option("--no-thumbnails", help="Leave out the pictures of a report on DATA.")] = False,
    quiet: Quiet = False,
) -> None:
    """Make the report of an artifact, one HTML file that works offline.

    \b
    Example:
      crossroads report runs/photos
      crossroads report runs/photos new-photos/ --out new-photos.html
    """
    with watching(json=True, quiet=quiet) as watcher:
        with starting(watcher):
            from crossroads.api import write_report
        path = write_report(run, data, out=out, class_names=class_names, thumbnails=not no_thumbnails, watcher=watcher)
    print(path)


@app.command(cls=PlainCommand)
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Artifacts, at least two.", show_default=False)],
    json: Json = False,
) -> None:
    """Compare artifacts side by side.

    Artifacts that were tested on the same images are compared image by image with the first.

    \b
    Example:
      crossroads compare runs/frozen runs/finetuned
    """
    from crossroads.api import compare as compare_them
    from crossroads.report.console import print_json, print_table

    result = compare_them(*runs)
    if json:
        print_json(result.to_json())
        return
    header = ("run", "strategy", "backbone", "accuracy", "95 %", "images", "seconds", "MB")
    rows = (
        (
            each.run,
            each.strategy,
            each.backbone,
            f"{each.accuracy:.4f}",
            f"{each.interval[0]:.4f} to {each.interval[1]:.4f}",
            f"{each.images:,} {each.source}",
            f"{each.seconds:.0f}",
            f"{each.megabytes:.1f}",
        )
        for each in result.runs
    )
    print_table(header, rows)
    print()
    for sentence in result.conclusions():
        print(sentence)


@app.command(cls=PlainCommand)
def info(run: Run, json: Json = False) -> None:
    """Show what an artifact is.

    \b
    Example:
      crossroads info runs/photos
    """
    from crossroads.report.console import print_json, print_lines
    from crossroads.report.info import info_of

    found = info_of(run)
    if json:
        print_json(found.to_json())
    else:
        print_lines(found.lines())
