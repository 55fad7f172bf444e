"""``crossroads fit``: every option of the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from crossroads.cli._app import INTERRUPTED, ClassNames, Json, Quiet, StrictSplit, app, watching
from crossroads.errors import CrossroadsError


@app.command()
def fit(
    data: Annotated[
        Optional[Path],
        typer.Argument(metavar="DATA", help="Labelled images; may also stand in the recipe as `data`.", show_default=False),
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="A new folder for the artifact.", show_default=False)] = None,
    test: Annotated[
        Optional[Path], typer.Option(help="A separate test set, read only for the final evaluation.", show_default=False)
    ] = None,
    class_names: ClassNames = None,
    backbone: Annotated[
        Optional[str],
        typer.Option(
            help="A name that `crossroads backbones` lists, a .keras file, or package.module:function of your own.",
            show_default=False,
        ),
    ] = None,
    strategy: Annotated[
        Optional[str],
        typer.Option(
            help="feature-extraction, early-features, finetune, finetune-early, warm-start, from-scratch; or auto, the default: "
            "measure which fits, and race the best.",
            show_default=False,
        ),
    ] = None,
    budget: Annotated[
        Optional[str],
        typer.Option(help="Time that choosing and training may take, such as 90s, 5m or 1h; 10m by default.", show_default=False),
    ] = None,
    weights: Annotated[
        Optional[str],
        typer.Option(help="What a pretrained strategy starts from: imagenet (default), none, or a file.", show_default=False),
    ] = None,
    cut: Annotated[
        Optional[str],
        typer.Option(help="Where the backbone ends: a layer, an index or a share of the depth such as 0.6.", show_default=False),
    ] = None,
    freeze_to: Annotated[
        Optional[str], typer.Option(help="The cut up to which it stays frozen while the rest is finetuned.", show_default=False)
    ] = None,
    pooling: Annotated[
        Optional[str],
        typer.Option(
            help="How a map of features becomes a vector: average, max, with -2, -3 or -4 for a grid, or none.", show_default=False
        ),
    ] = None,
    head: Annotated[Optional[str], typer.Option(help="linear (solved), mlp, or sgd (the notes' way).", show_default=False)] = None,
    views: Annotated[
        Optional[int], typer.Option(help="Versions of each training image whose features are cached.", show_default=False)
    ] = None,
    feature_type: Annotated[Optional[str], typer.Option(help="float32 or float16, for the cache.", show_default=False)] = None,
    precision: Annotated[
        Optional[str], typer.Option(help="What the frozen part is computed in: float32 or int8.", show_default=False)
    ] = None,
    epochs: Annotated[
        Optional[int],
        typer.Option(help="Passes over the training images; chosen from their number by default.", show_default=False),
    ] = None,
    batch_size: Annotated[
        Optional[int], typer.Option(help="Images a step; the backbone's own by default.", show_default=False)
    ] = None,
    image_size: Annotated[
        Optional[int],
        typer.Option(help="Side in pixels that images are resized to; chosen from the images by default.", show_default=False),
    ] = None,
    resize: Annotated[
        Optional[str],
        typer.Option(help="squash scales both sides; crop takes the middle, the default for photographs.", show_default=False),
    ] = None,
    validation: Annotated[
        Optional[float],
        typer.Option(help="Share whose accuracy, then loss, chooses the best epoch; 0.1 by default.", show_default=False),
    ] = None,
    test_fraction: Annotated[
        Optional[float],
        typer.Option(help="Share held out as test where none is given, 0.1 by default; 0 for none.", show_default=False),
    ] = None,
    seed: Annotated[
        Optional[int], typer.Option(help="Decides split, first weights, order and augmentation; 0 by default.", show_default=False)
    ] = None,
    augment: Annotated[
        Optional[bool], typer.Option("--augment/--no-augment", help="Move training images.", show_default=False)
    ] = None,
    optimizer: Annotated[Optional[str], typer.Option(help="adam or adamw.", show_default=False)] = None,
    learning_rate: Annotated[Optional[float], typer.Option(help="Peak of the schedule.", show_default=False)] = None,
    schedule: Annotated[Optional[str], typer.Option(help="constant, cosine or one-cycle.", show_default=False)] = None,
    weight_decay: Annotated[Optional[float], typer.Option(help="Decoupled, for adamw.", show_default=False)] = None,
    label_smoothing: Annotated[
        Optional[float], typer.Option(help="Share of the target spread over all classes.", show_default=False)
    ] = None,
    class_weights: Annotated[
        Optional[str], typer.Option(help="none, or balanced for classes of unequal size.", show_default=False)
    ] = None,
    mixup: Annotated[Optional[float], typer.Option(help="Mix pairs of training images; 0.2 is usual.", show_default=False)] = None,
    warm_up: Annotated[
        Optional[float], typer.Option(help="Share of the steps in which the learning rate rises.", show_default=False)
    ] = None,
    layer_decay: Annotated[
        Optional[float], typer.Option(help="Factor of the rate from one block to the one below.", show_default=False)
    ] = None,
    l2_sp: Annotated[
        Optional[float], typer.Option(help="Pull of finetuned weights towards the pretrained ones.", show_default=False)
    ] = None,
    ema: Annotated[
        Optional[float], typer.Option(help="Momentum of a moving average of weights, such as 0.99.", show_default=False)
    ] = None,
    unfreeze: Annotated[Optional[str], typer.Option(help="at-once, or gradual from the head down.", show_default=False)] = None,
    train_batchnorm: Annotated[
        Optional[bool],
        typer.Option("--train-batchnorm/--no-train-batchnorm", help="Let BatchNorm move while finetuning.", show_default=False),
    ] = None,
    early_stopping: Annotated[
        Optional[int], typer.Option(help="Stop after so many epochs without a better loss.", show_default=False)
    ] = None,
    recipe: Annotated[Optional[Path], typer.Option(help="A TOML file with any of these options.", show_default=False)] = None,
    strict: StrictSplit = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the unfinished run in --out.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a classifier, test it, and leave one artifact.

    \b
    Example:
      crossroads fit photos/ --out runs/photos
      crossroads fit photos/ --out runs/photos --budget 30m
      crossroads fit train.p --test test.p --backbone quiz-cnn --epochs 10 --validation 0.2 --out runs/quiz
      crossroads fit photos/ --strategy feature-extraction --backbone mobilenet-v2 --out runs/photos
      crossroads fit photos/ --out runs/photos --resume
    """
    from crossroads.api import fit as train
    from crossroads.errors import RecipeError
    from crossroads.report.console import print_json, print_run

    options = {
        "data": None if data is None else str(data),
        "test": None if test is None else str(test),
        "class_names": None if class_names is None else str(class_names),
        "backbone": backbone,
        "strategy": strategy,
        "budget": budget,
        "weights": weights,
        "cut": cut,
        "freeze_to": freeze_to,
        "pooling": pooling,
        "head": head,
        "views": views,
        "feature_type": feature_type,
        "precision": precision,
        "epochs": epochs,
        "batch_size": batch_size,
        "image_size": image_size,
        "resize": resize,
        "validation": validation,
        "test_fraction": test_fraction,
        "seed": seed,
        "augment": augment,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "weight_decay": weight_decay,
        "label_smoothing": label_smoothing,
        "class_weights": class_weights,
        "mixup": mixup,
        "warm_up": warm_up,
        "layer_decay": layer_decay,
        "l2_sp": l2_sp,
        "ema": ema,
        "unfreeze": unfreeze,
        "train_batchnorm": train_batchnorm,
        "early_stopping": early_stopping,
        "strict": strict or None,
    }
    asked = _given(recipe, options)
    if out is None:
        raise RecipeError("fit needs a folder for the artifact", hint="add --out RUN")
    with watching(json=json, quiet=quiet) as watcher:
        try:
            run = train(out=out, resume=resume, watcher=watcher, **asked)
        except KeyboardInterrupt:
            raise _stopped(out) from None
    if json:
        print_json(run.to_json())
    else:
        print_run(run)


class _Stopped(CrossroadsError):
    """Ctrl-C."""

    exit_code = INTERRUPTED


def _stopped(out: Path) -> _Stopped:
    """What to say of a run that Ctrl-C has ended, by what is left of it."""
    from crossroads.run.folder import RunFolder

    folder = RunFolder(out)
    if folder.finished:
        return _Stopped("stopped; the run is finished")
    if folder.unfinished:
        return _Stopped("stopped", hint="add --resume to continue")
    return _Stopped("stopped before the first epoch ended; nothing was kept")


def _given(path: Path | None, options: dict[str, Any]) -> dict[str, Any]:
    """What the user named: the keys of the recipe, and the options, which win. Checked here, so that a mistake names its place."""
    from crossroads.recipe import Recipe, read_toml

    stored = {} if path is None else read_toml(path)
    Recipe.from_mapping(stored, str(path))
    return stored | {key: value for key, value in options.items() if value is not None}
