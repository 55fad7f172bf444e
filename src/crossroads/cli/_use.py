"""Defines the commands before and after training: audit, evaluate, predict, export and demo."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Optional

import typer

from crossroads.cli._app import ClassNames, Data, Json, PlainCommand, Quiet, Run, Strict, app, starting, watching


@app.command(cls=PlainCommand)
def audit(
    data: Data,
    min_images: Annotated[int, typer.Option(metavar="N", min=1, help="Report classes with fewer images than this.")] = 10,
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
        from crossroads.report.program import command, free_folder

        out = free_folder(data.resolve().name.partition(".")[0])
        print_audit(
            result,
            [
                (command("advise", data), "measure which strategy fits these images"),
                (command("fit", data, "--out", out), "train, test and save a classifier"),
            ],
        )


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
def predict(
    run: Run,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Image files or folders of images.", show_default=False)],
    top: Annotated[int, typer.Option(metavar="N", min=1, help="Number of labels per image.")] = 5,
    json: Json = False,
) -> None:
    """Predict the labels of images.

    \b
    Example:
      crossroads predict runs/photos cat.jpg dog.png --top 3
    """
    from crossroads.errors import ImageRefused
    from crossroads.progress import Note, stage
    from crossroads.report.console import print_json, print_predictions
    from crossroads.report.errors import print_error

    notes: list[str] = []
    with watching(json=True, quiet=not sys.stderr.isatty()) as watcher:  # the output holds nothing but predictions
        with stage(watcher.progress, "loading the artifact"):
            from crossroads.predictor import Predictor

            predictor, files = Predictor.load(run), _files(images, notes.append)
        for note in notes:
            watcher.note(note)
        watcher.progress("predicting", 0, len(files))
        predictions, refused = predictor.predict_each(
            files, top=top, progress=lambda done: watcher.progress("predicting", done, len(files))
        )
    if json:
        if refused:
            notes.append(Note(f"{len(refused)} of {len(files)} images were refused", "images-refused", images=len(refused)))
        listed = [{"name": error.name, "reason": str(error).removeprefix(f"{error.name}: ")} for error in refused]
        print_json({"predictions": [p.to_json() for p in predictions], "refused": listed, "warnings": notes})
    else:
        print_predictions(predictions)
    for error in refused:
        print_error(str(error))
    if refused:
        raise typer.Exit(ImageRefused.exit_code)


@app.command(cls=PlainCommand)
def export(
    run: Run,
    out: Annotated[Path, typer.Option(metavar="PATH", help="Path of the new file.", show_default=False)],
    format: Annotated[str, typer.Option(metavar="NAME", help="Format of the file. [keras]")] = "keras",  # noqa: A002
) -> None:
    """Export the classifier of an artifact as a Keras model.

    If the backbone stayed frozen, the model is built again and compared with the graph of the artifact.

    \b
    Example:
      crossroads export runs/photos --out photos.keras
    """
    from crossroads.errors import unknown
    from crossroads.run.export import export_keras

    if format != "keras":
        raise unknown("format", format, ["keras"])
    print(export_keras(run, out))


def _files(places: list[Path], note: Callable[[str], None]) -> list[Path]:
    """Returns the files as named; for a folder, the images that `fit` would read from it, in natural order."""
    from crossroads.data.image_files import image_files

    files: list[Path] = []
    for place in places:
        if not place.is_dir():
            files.append(place)
            continue
        images, notes = image_files(place)
        files += images
        for text in notes:
            note(text)
    return files


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
    from crossroads.report.program import command, free_folder

    with watching(json=json, quiet=quiet) as watcher:
        with starting(watcher):
            from crossroads.demo import run_demo

        run, sample = run_demo(out, watcher)
    if json:
        print_json(run.to_json() | {"sample": str(sample)})
        return
    print_run(
        run,
        [
            (command("predict", run.artifact, sample), "label an image of a digit"),
            (command("audit", "YOUR_IMAGES"), "check images of your own"),
            (command("fit", "YOUR_IMAGES", "--out", free_folder("mine")), "train a classifier on them"),
        ],
    )
