"""Defines the commands that run a network on any number of images: predict and embed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from crossroads.cli._app import Json, PlainCommand, Quiet, Run, app, starting, watching

if TYPE_CHECKING:
    from crossroads.outputs._rows import Written
    from crossroads.predictor import Prediction


@app.command(cls=PlainCommand)
def predict(
    run: Run,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES",
            help="Image files, folders, quoted patterns such as 'photos/**/*.jpg', .zip or .tar archives, .txt files with one path "
            "per line, or - for paths on the standard input.",
            show_default=False,
        ),
    ],
    top: Annotated[int, typer.Option(metavar="INTEGER", min=1, help="Number of labels per image.")] = 5,
    out: Annotated[
        Optional[Path],
        typer.Option(
            metavar="FILE",
            help="A new .csv, .jsonl or .parquet file with one row per image: path, label, probability, label_2, probability_2, …, "
            "error.",
            show_default=False,
        ),
    ] = None,
    sort_into: Annotated[
        Optional[Path],
        typer.Option(metavar="DIR", help="Copy each image into DIR/LABEL/. No file is overwritten.", show_default=False),
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="With --sort-into, make symbolic links instead of copies.")] = False,
    json: Json = False,
) -> None:
    """Predict the labels of images.

    Any number of images is predicted in bounded memory. If a command with --out is interrupted, repeat it: it continues after the
    rows in FILE.partial, which become FILE at the end. It refuses to continue with another artifact or other images.

    \b
    Example:
      crossroads predict runs/photos cat.jpg dog.png --top 3
      crossroads predict runs/photos new-photos/ --out predictions.csv
      find /data -name '*.jpg' | crossroads predict runs/photos - --out predictions.parquet
      crossroads predict runs/photos new-photos.zip --sort-into sorted/
    """
    from crossroads.errors import ImageRefused, option, without_effect
    from crossroads.progress import Note, stage

    if link and sort_into is None:
        raise without_effect("link", "--link", f"without {option('sort_into')}")
    shown = _Shown(json=json, lines=out is None)
    with watching(json=True, quiet=not sys.stderr.isatty()) as watcher:  # the output holds nothing but predictions
        with stage(watcher.progress, "loading the artifact"):
            from crossroads.data.readers.unlabelled import list_images
            from crossroads.outputs.predictions import predict_files
            from crossroads.predictor import Predictor

            predictor, listed = Predictor.load(run), list_images(images)
        warnings: list[str] = list(listed.notes)
        if out is not None or json:
            written = predict_files(
                predictor, listed, out=out, top=top, sort_into=sort_into, link=link, watcher=watcher, show=shown.add
            )
    if out is None and not json:  # the lines show the progress, and a bar on the same terminal would disturb them
        with watching(json=True, quiet=True) as watcher:
            written = predict_files(predictor, listed, top=top, sort_into=sort_into, link=link, watcher=watcher, show=shown.add)
    if written.refused:
        text = f"{written.refused:,} of {written.images:,} images were refused"
        warnings.append(Note(text, "images-refused", images=written.refused))
    shown.end(written, sort_into, warnings)
    if written.refused and (out is None or written.refused == written.images):
        raise typer.Exit(ImageRefused.exit_code)


@app.command(cls=PlainCommand)
def embed(
    network: Annotated[
        str,
        typer.Argument(metavar="RUN|BACKBONE", help="An artifact, or a pretrained backbone as `fit` takes it.", show_default=False),
    ],
    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="Images with or without labels, as `fit` or `predict` reads them.", show_default=False),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="A new .parquet or .npz file with one row per image: path, label, features, error.",
            show_default=False,
        ),
    ],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compute the features of images, for a search or a program of your own.

    The features are the input of the head, float32, and belong to the images as the artifact resizes them. Those of a backbone are
    averaged over the image. An interrupted command continues as that of predict does.

    \b
    Example:
      crossroads embed runs/photos new-photos/ --out features.parquet
      crossroads embed efficientnet-lite0 photos.zip --out features.npz
    """
    from crossroads.report.console import print_json, print_lines

    with watching(json=json, quiet=quiet) as watcher:
        with starting(watcher):
            from crossroads.outputs.embeddings import embed_files, extractor, list_data

        images = list_data(data, watcher)
        written = embed_files(extractor(network, watcher), images, out=out, watcher=watcher)
    if json:
        print_json(
            {"out": str(out), "images": written.images, "images_refused": written.refused, "images_continued": written.continued}
        )
    else:
        print_lines([("images", f"{written.images:,}"), ("refused", f"{written.refused:,}"), ("out", out)])


class _Shown:
    """Shows predictions: a line per image, one JSON value at the end, or a summary of the file that was written.

    Args:
        json: Whether to print JSON.
        lines: Whether each prediction is shown.
    """

    def __init__(self, *, json: bool, lines: bool) -> None:
        self._json, self._lines = json, lines
        self._predictions: list[Prediction] = []
        self._refused: list[dict[str, str]] = []

    def add(self, row: Sequence[Any]) -> None:
        """Prints one row, or keeps it for the JSON."""
        from crossroads.predictor import Prediction, Ranked
        from crossroads.report.console import print_predictions

        if not self._lines:
            return
        name, *ranked, error = row
        if error is not None:
            self._refused.append({"name": name, "reason": error})
            print(f"error: {name}: {error}", file=sys.stderr)
            return
        prediction = Prediction(name, tuple(map(Ranked, ranked[::2], ranked[1::2])))
        if self._json:
            self._predictions.append(prediction)
        else:
            print_predictions([prediction])

    def end(self, written: Written, sort_into: Path | None, warnings: list[str]) -> None:
        """Prints what is left to show."""
        from crossroads.report.console import print_json, print_lines

        files = {"out": written.out, "sorted_into": sort_into}
        places = {name: str(path) for name, path in files.items() if path is not None}
        if self._json and self._lines:
            rows = [prediction.to_json() for prediction in self._predictions]
            print_json({"predictions": rows, "refused": self._refused, "warnings": warnings})
        elif self._json:
            counts = {"images": written.images, "images_refused": written.refused, "images_continued": written.continued}
            print_json({**places, **counts, "warnings": warnings})
        elif not self._lines:
            print_lines([("images", f"{written.images:,}"), ("refused", f"{written.refused:,}"), *places.items()])
