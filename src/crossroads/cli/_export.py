"""Defines the command export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from crossroads.cli._app import Json, PlainCommand, Quiet, Run, app, starting, watching


@app.command(cls=PlainCommand)
def export(
    run: Run,
    out: Annotated[
        Path, typer.Option(metavar="PATH", help="Path of the new file, or of the new folder of a SavedModel.", show_default=False)
    ],
    format: Annotated[  # noqa: A002
        Optional[str],
        typer.Option(
            metavar="NAME",
            help="Format of the file. [openvino, onnx, litert, keras, saved-model; default: that of the suffix .xml, .onnx, "
            ".tflite or .keras, and saved-model without a suffix]",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Optional[str],
        typer.Option(
            metavar="DATA",
            help="Images to compare on. [default: held-out images of the run, or drawn images if its data is not there]",
            show_default=False,
        ),
    ] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Store the weights as float16, for openvino and litert.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export the classifier of an artifact for another runtime.

    The file takes uint8 RGB images of the artifact's size and gives probabilities. It is run by its own runtime, and is kept only
    if it gives the same answers as the artifact.

    \b
    Example:
      crossroads export runs/photos --out photos.onnx
      crossroads export runs/photos --out photos.tflite --fp16 --data new-photos/
    """
    from crossroads.report.console import print_json, print_lines

    with watching(json=json, quiet=quiet or not sys.stderr.isatty()) as watcher:
        with starting(watcher):
            from crossroads.exports.exporting import export as write

        exported = write(run, out, format, data=data, half=fp16, watcher=watcher)
    if json:
        print_json(exported.to_json())
        return
    found = exported.comparison
    print_lines(
        [
            *(("file", path) for path in exported.files),
            ("megabytes", f"{exported.bytes / 1e6:.1f}"),
            ("compared_on", exported.compared_on),
            ("same_label", f"{found.agreeing} of {found.images}"),
            ("largest_difference", f"{found.max_difference:.2g}"),
            ("images_per_second", f"{found.images_per_second:,.0f} (artifact: {found.artifact_images_per_second:,.0f})"),
        ]
    )
