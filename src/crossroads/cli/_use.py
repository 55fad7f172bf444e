"""Defines the commands before and after training: audit, evaluate and demo."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from crossroads.cli._app import ClassNames, Data, Json, PlainCommand, Quiet, Run, Strict, app, starting, watching


@app.command(cls=PlainCommand)
def audit(
    data: Data,
    min_images: Annotated[int, typer.Option(metavar="INTEGER", min=1, help="Report classes with fewer images than this.")] = 10,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check labelled images before training.

    Reports unreadable, blank and duplicated images, images and groups that are in two splits, small and unbalanced classes, and
    classes that are mirror images of each other.

    \b
    Example:
      crossroads audit photos/
      crossroads audit GTSRB.tar.xz --json > audit.json
    """
    from crossroads.report.console import print_audit, print_json

    with watching(json=json, quiet=quiet) as watcher:
        with starting(watcher):
            from crossroads.api import audit as check

        result = check(data, min_images=min_images, watcher=watcher)
    if json:
        print_json(result.to_json())
    else:
        print_audit(result)


@app.command(cls=PlainCommand)
def evaluate(
    run: Run, data: Data, class_names: ClassNames = None, strict: Strict = False, json: Json = False, quiet: Quiet = False
) -> None:
    """Score an artifact on labelled images.

    \b
    Example:
      crossroads evaluate runs/photos new-photos/
      crossroads evaluate runs/photos new-photos.zip --json > scores.json
    """
    from crossroads.report.console import print_evaluation, print_json

    with watching(json=json, quiet=quiet) as watcher:
        with starting(watcher):
            from crossroads.api import evaluate as score

        scored = score(run, data, class_names=class_names, strict=strict, watcher=watcher)
    if json:
        print_json(scored.to_json())
    else:
        print_evaluation(scored)


@app.command(cls=PlainCommand)
def demo(
    out: Annotated[
        Optional[Path],
        typer.Option(
            metavar="PATH", help="A new folder for the artifact. [default: runs/demo, or runs/demo-2, …]", show_default=False
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train, test and save a demo classifier.

    It needs no data: in under a minute, it fits the default network to the handwritten digits that scikit-learn includes.

    \b
    Example:
      crossroads demo
    """
    from crossroads.report.console import print_json, print_run

    with watching(json=json, quiet=quiet) as watcher:
        with starting(watcher):
            from crossroads.demo import run_demo

        run, sample = run_demo(out, watcher)
    if json:
        print_json(run.to_json() | {"sample": str(sample)})
        return
    print_run(run)
    print(f"\nnext: {_program()} predict {run.artifact} {sample}")
    print(f"      {_program()} audit YOUR_IMAGES")
    print(f"      {_program()} fit YOUR_IMAGES --out runs/mine")


def _program() -> str:
    """Returns the command that calls this program: its name if the shell finds it, otherwise its path."""
    import shutil

    return "crossroads" if shutil.which("crossroads") else os.path.relpath(sys.argv[0])
