"""Defines ``crossroads advise``, which recommends a strategy and gives the reasons."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from crossroads.cli._app import Data, Json, PlainCommand, Quiet, Verbose, app, recipe_options, starting, watching

if TYPE_CHECKING:
    from crossroads.recipe import Recipe


@app.command(cls=PlainCommand)
@recipe_options(
    (
        *("class_names", "validation", "test_fraction", "image_size", "resize", "crop_fraction", "resample", "preprocessing"),
        *("seed", "strict"),
    )
)
def advise(
    data: Data,
    backbone: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="NAME",
            help="A pretrained network to consider; repeat the option for more. "
            "[default: efficientnet-lite0 and the two cheapest networks whose downloaded weights are cached]",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="NAME",
            help="Weights of the backbones: imagenet, own, none, or the path of a file; one value for all backbones, or one for "
            "each. [default: imagenet, or own for your own network]",
            show_default=False,
        ),
    ] = None,
    budget: Annotated[
        Optional[str],
        typer.Option(
            metavar="TIME",
            help="Time limit of a training run, such as 90s, 5m or 1h. [default: no limit]",
            show_default=False,
        ),
    ] = None,
    test: Annotated[
        Optional[Path],
        typer.Option(
            metavar="PATH", help="Path of a separate test set; no test images are then held out of DATA.", show_default=False
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    **fields: Any,
) -> None:
    """Recommend a strategy for your images, and explain why.

    \b
    Example:
      crossroads advise photos/
      crossroads advise photos/ --backbone mobilenet-v2 --backbone resnet50 --budget 5m
    """
    from crossroads.report.console import print_json

    with watching(json=json, quiet=quiet, verbose=verbose) as watcher:
        with starting(watcher):
            from crossroads.api import advise as ask
            from crossroads.report.advice import print_advice

        advice = ask(data, backbones=backbone or (), weights=weights or (), test=test, budget=budget, watcher=watcher, **fields)
    if json:
        print_json(advice.to_json())
    else:
        print_advice(advice, _next_commands(data, advice.best.recipe))


def _next_commands(data: Path, best: Recipe) -> list[tuple[str, str]]:
    """Returns the commands that train: with the best candidates in a race, and with the recommended strategy alone."""
    from crossroads.report.program import command, free_folder

    out = free_folder(data.resolve().name.partition(".")[0])
    named = ("--strategy", best.strategy, *(() if best.backbone is None else ("--backbone", best.backbone)))
    return [
        (command("fit", data, "--out", out), "train the best candidates and keep the best"),
        (command("fit", data, "--out", out, *named), "train the recommended strategy alone"),
    ]
