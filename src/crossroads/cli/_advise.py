"""``crossroads advise``: which strategy fits, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from crossroads.cli._app import ClassNames, Data, Json, Quiet, StrictSplit, app, watching


@app.command()
def advise(
    data: Data,
    backbone: Annotated[
        Optional[list[str]],
        typer.Option(
            help="A pretrained network to consider; again for another. Those whose weights are here by default.", show_default=False
        ),
    ] = None,
    weights: Annotated[
        Optional[list[str]],
        typer.Option(help="Its weights: imagenet (default), none, or a file; once for all, or once for each.", show_default=False),
    ] = None,
    budget: Annotated[
        Optional[str],
        typer.Option(help="Time that a training may take, such as 90s, 5m or 1h; any by default.", show_default=False),
    ] = None,
    test: Annotated[
        Optional[Path], typer.Option(help="A separate test set: no test is then held out of DATA.", show_default=False)
    ] = None,
    class_names: ClassNames = None,
    image_size: Annotated[
        Optional[int], typer.Option(help="Side in pixels; chosen from the images by default.", show_default=False)
    ] = None,
    resize: Annotated[Optional[str], typer.Option(help="squash, or crop, the default for photographs.", show_default=False)] = None,
    validation: Annotated[Optional[float], typer.Option(help="Share that is not looked at, as in fit.", show_default=False)] = None,
    test_fraction: Annotated[Optional[float], typer.Option(help="Share held out as test, as in fit.", show_default=False)] = None,
    seed: Annotated[Optional[int], typer.Option(help="Decides split, sample and random weights.", show_default=False)] = None,
    strict: StrictSplit = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say which strategy fits labelled images, from measurements on them, and why.

    \b
    Example:
      crossroads advise photos/
      crossroads advise photos/ --backbone mobilenet-v2 --backbone resnet50 --budget 5m
    """
    from crossroads.api import advise as ask
    from crossroads.report.advice import print_advice
    from crossroads.report.console import print_json

    options: dict[str, Any] = {
        "class_names": None if class_names is None else str(class_names),
        "budget": budget,
        "image_size": image_size,
        "resize": resize,
        "validation": validation,
        "test_fraction": test_fraction,
        "seed": seed,
        "strict": strict or None,
    }
    with watching(json=json, quiet=quiet) as watcher:
        found = ask(data, backbones=backbone or (), weights=weights or (), test=test, watcher=watcher, **options)
    if json:
        print_json(found.to_json())
    else:
        print_advice(found)
