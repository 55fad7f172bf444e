"""Defines ``crossroads fit``, with an option for each field of the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from crossroads.cli._app import INTERRUPTED, Json, PlainCommand, Quiet, app, recipe_options, starting, watching
from crossroads.errors import CrossroadsError, option
from crossroads.recipe import GROUPS, Recipe
from crossroads.recipe.fields import options

_ELSEWHERE = ("data", "augmentation")
"""The first argument, and a table that only a recipe file can hold."""

_FIELDS = [field for field in options(Recipe).values() if field.name not in _ELSEWHERE]


@app.command(cls=PlainCommand)
@recipe_options(field.name for field in sorted(_FIELDS, key=lambda field: GROUPS.index(field.group)))
def fit(
    *,
    data: Annotated[
        Optional[Path],
        typer.Argument(metavar="DATA", help="Labelled images; by default, `data` in the recipe.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="PATH", help="A new folder for the artifact.", show_default=False)],
    recipe: Annotated[
        Optional[Path], typer.Option(metavar="PATH", help="A TOML file that sets any of the options below.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the unfinished run in --out.")] = False,
    no_report: Annotated[bool, typer.Option("--no-report", help="Write no report.html and no README.md.")] = False,
    no_thumbnails: Annotated[
        bool, typer.Option("--no-thumbnails", help="Keep no small pictures of held-out images for the report.")
    ] = False,
    track: Annotated[
        Optional[str],
        typer.Option(metavar="NAME", help="Also log the run to TensorBoard or MLflow. [tensorboard, mlflow]", show_default=False),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    **fields: Any,
) -> None:
    """Train and test a classifier, and save it as an artifact.

    \b
    Example:
      crossroads fit photos/ --out runs/photos
      crossroads fit photos/ --out runs/photos --budget 30m
      crossroads fit train.p --test test.p --backbone quiz-cnn --epochs 10 --validation 0.2 --out runs/quiz
      crossroads fit photos/ --strategy feature-extraction --backbone mobilenet-v2 --out runs/photos
      crossroads fit photos/ --out runs/photos --resume
    """
    from crossroads.report.console import print_json, print_run

    with watching(json=json, quiet=quiet) as watcher:
        try:
            with starting(watcher):
                from crossroads.api import fit as train
            run = train(
                data,
                out=out,
                recipe=recipe,
                resume=resume,
                track=track,
                report=not no_report,
                thumbnails=not no_thumbnails,
                watcher=watcher,
                **fields,
            )
        except KeyboardInterrupt:
            raise _stopped(out) from None
    if json:
        print_json(run.to_json())
    else:
        print_run(run)


class _Stopped(CrossroadsError):
    """The user pressed Ctrl-C."""

    exit_code = INTERRUPTED


def _stopped(out: Path) -> _Stopped:
    """Returns the error that says what is left of a run that Ctrl-C ended."""
    from crossroads.run.folder import RunFolder

    folder = RunFolder(out)
    if folder.finished:
        return _Stopped("stopped; the run is finished", code="stopped")
    if folder.unfinished:
        return _Stopped("stopped", code="stopped", hint=f"add {option('resume')} to continue")
    return _Stopped("stopped before the first epoch ended; nothing was kept", code="stopped")
