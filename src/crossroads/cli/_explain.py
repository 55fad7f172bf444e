"""Defines the command explain."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from crossroads.cli._app import Json, PlainCommand, Run, app

if TYPE_CHECKING:
    from crossroads.explain.files import Explanation


@app.command(cls=PlainCommand)
def explain(
    run: Run,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Image files.", show_default=False)],
    out: Annotated[
        Optional[Path],
        typer.Option(metavar="DIR", help="A folder for the pictures with heat maps, one per image.", show_default=False),
    ] = None,
    class_name: Annotated[
        Optional[str],
        typer.Option("--class", metavar="NAME", help="The class to explain. [default: the most probable one]", show_default=False),
    ] = None,
    nearest: Annotated[int, typer.Option(metavar="INTEGER", min=0, help="Number of similar training images to list.")] = 0,
    json: Json = False,
) -> None:
    """Show which parts of images a prediction depends on.

    A heat map is bright where an image speaks for the class. The nearest training images are those with the most similar features.

    \b
    Example:
      crossroads explain runs/photos cat.jpg dog.png --out heat/
      crossroads explain runs/photos cat.jpg --nearest 5
    """
    from crossroads.errors import ImageRefused
    from crossroads.explain.files import explain_files
    from crossroads.files.text import printable
    from crossroads.report.console import print_json

    explained: list[Explanation] = []
    refused: list[ImageRefused] = []
    for each in explain_files(run, images, out=out, class_name=class_name, nearest=nearest):
        if isinstance(each, ImageRefused):
            refused.append(each)
            print(f"error: {printable(str(each))}", file=sys.stderr)
            continue
        explained.append(each)
        if not json:
            _print(each)
    if json:
        listed = [{"name": error.name, "reason": str(error).removeprefix(f"{error.name}: ")} for error in refused]
        print_json({"explanations": [each.to_json() for each in explained], "refused": listed})
    if refused:
        raise typer.Exit(ImageRefused.exit_code)


def _print(explained: Explanation) -> None:
    """Prints a line for an image, and one for each of its nearest training images."""
    from crossroads.files.text import printable

    drawn = "" if explained.file is None else f", {explained.method}: {printable(str(explained.file))}"
    print(f"{explained.name}: {explained.label} {explained.probability:.4f}{drawn}")
    for each in explained.nearest:
        print(f"  {each.similarity:.4f}  {each.label}  {printable(each.name)}")
