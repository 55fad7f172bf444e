"""The command line. Each command reads its options, calls one function of the library, and shows what came back."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

import crossroads
from crossroads.errors import CrossroadsError

if TYPE_CHECKING:
    from crossroads.report.console import ConsoleWatcher, NotesOnly

# Typer shows these itself, over several lines; here every mistake has one form.
INTERRUPTED = 130
UsageError: Any = typer.BadParameter.__base__

app = typer.Typer(
    name="crossroads",
    help="Labelled images in, a tested image classifier out.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Data = Annotated[
    Path,
    typer.Argument(metavar="DATA", help="Labelled images: a folder, an archive, CSV, pickle, .npz or Parquet.", show_default=False),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="The folder that `fit` wrote.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for a program to read.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show notes and the result only, no progress.")]
ClassNames = Annotated[
    Optional[Path], typer.Option(help="A file that names integer labels, such as lines of 14,Stop.", show_default=False)
]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first image that cannot be read.")]


def _version(asked: bool) -> None:
    if asked:
        print(f"crossroads {crossroads.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


@app.command()
def audit(
    data: Data,
    min_images: Annotated[int, typer.Option(min=1, help="Report classes with fewer images than this.")] = 10,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check labelled images before training: unreadable, blank, duplicated, leaking, unbalanced, mirrored.

    \b
    Example:
      crossroads audit photos/
      crossroads audit GTSRB.tar.xz --json > audit.json
    """
    from crossroads.report.console import print_audit, print_json
    from crossroads.workflow import audit as check

    with _watching(json=json, quiet=quiet) as watcher:
        found = check(data, min_images=min_images, watcher=watcher)
    if json:
        print_json(found.to_json())
    else:
        print_audit(found)


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
    backbone: Annotated[Optional[str], typer.Option(help="A name that `crossroads backbones` lists.", show_default=False)] = None,
    strategy: Annotated[
        Optional[str], typer.Option(help="How much of the backbone is trained; from-scratch by default.", show_default=False)
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
    validation: Annotated[
        Optional[float], typer.Option(help="Share that chooses the best epoch, 0.1 by default.", show_default=False)
    ] = None,
    test_share: Annotated[
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
    early_stopping: Annotated[
        Optional[int], typer.Option(help="Stop after so many epochs without a better loss.", show_default=False)
    ] = None,
    recipe: Annotated[Optional[Path], typer.Option(help="A TOML file with any of these options.", show_default=False)] = None,
    strict: Strict = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the unfinished run in --out.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a classifier, test it, and leave one artifact.

    \b
    Example:
      crossroads fit photos/ --out runs/photos
      crossroads fit train.p --test test.p --backbone quiz-cnn --epochs 10 --validation 0.2 --out runs/quiz
      crossroads fit photos/ --out runs/photos --resume
    """
    from crossroads.errors import RecipeError
    from crossroads.report.console import print_json, print_run
    from crossroads.workflow import fit as train

    options = {
        "data": None if data is None else str(data),
        "test": None if test is None else str(test),
        "class_names": None if class_names is None else str(class_names),
        "backbone": backbone,
        "strategy": strategy,
        "epochs": epochs,
        "batch_size": batch_size,
        "image_size": image_size,
        "validation": validation,
        "test_share": test_share,
        "seed": seed,
        "augment": augment,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "weight_decay": weight_decay,
        "label_smoothing": label_smoothing,
        "class_weights": class_weights,
        "early_stopping": early_stopping,
        "strict": strict or None,
    }
    asked = _given(recipe, options)
    if out is None:
        raise RecipeError("fit needs a folder for the artifact", mend="add --out RUN")
    with _watching(json=json, quiet=quiet) as watcher:
        run = train(out=out, resume=resume, watcher=watcher, **asked)
    if json:
        print_json(run.to_json())
    else:
        print_run(run)


@app.command()
def evaluate(
    run: Run, data: Data, class_names: ClassNames = None, strict: Strict = False, json: Json = False, quiet: Quiet = False
) -> None:
    """Score a finished artifact on labelled images.

    \b
    Example:
      crossroads evaluate runs/photos new-photos/
      crossroads evaluate runs/photos new-photos.zip --json > scores.json
    """
    from crossroads.report.console import print_evaluation, print_json
    from crossroads.workflow import evaluate as score

    with _watching(json=json, quiet=quiet) as watcher:
        scored = score(run, data, class_names=class_names, strict=strict, watcher=watcher)
    if json:
        print_json(scored.to_json())
    else:
        print_evaluation(scored)


@app.command()
def predict(
    run: Run,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Image files.", show_default=False)],
    top: Annotated[int, typer.Option(min=1, help="How many labels an image.")] = 5,
    json: Json = False,
) -> None:
    """Rank the labels of images.

    \b
    Example:
      crossroads predict runs/photos cat.jpg dog.png --top 3
    """
    from crossroads.errors import ImageRefused
    from crossroads.predictor import Predictor
    from crossroads.report.console import print_json, print_predictions

    predictions, refused = Predictor.load(run).predict_each(images, top=top)
    if json:
        print_json({"predictions": [p.to_json() for p in predictions], "refused": [str(error) for error in refused]})
    else:
        print_predictions(predictions)
    for error in refused:
        print(f"error: {error}", file=sys.stderr)
    if refused:
        raise typer.Exit(ImageRefused.exit_code)


@app.command()
def backbones(json: Json = False) -> None:
    """List the networks that can be trained.

    \b
    Example:
      crossroads backbones
    """
    from crossroads.networks.catalog import CATALOG
    from crossroads.report.console import print_json, print_table

    if json:
        print_json([record.to_json() for record in CATALOG])
        return
    header = ("name", "year", "image sizes", "preprocessing", "summary")
    print_table(header, ((b.name, b.year, "/".join(map(str, b.sizes)), b.preprocessing, b.summary) for b in CATALOG))


@app.command()
def demo(
    out: Annotated[
        Optional[Path], typer.Option(help="A new folder; runs/demo, or the next free one, by default.", show_default=False)
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train, test and save a classifier of handwritten digits that come with scikit-learn: the main job in under a minute.

    \b
    Example:
      crossroads demo
    """
    from crossroads.demo import run_demo
    from crossroads.report.console import print_json, print_run

    with _watching(json=json, quiet=quiet) as watcher:
        run, sample = run_demo(out, watcher)
    if json:
        print_json(run.to_json() | {"sample": str(sample)})
        return
    print_run(run)
    print(f"\nnext: {_program()} predict {run.artifact} {sample}")
    print(f"      {_program()} audit YOUR_IMAGES")
    print(f"      {_program()} fit YOUR_IMAGES --out runs/mine")


def _program() -> str:
    """How the user can call this program: by its name where the shell finds it, else by its path."""
    import shutil

    return "crossroads" if shutil.which("crossroads") else os.path.relpath(sys.argv[0])


def _given(path: Path | None, options: dict[str, Any]) -> dict[str, Any]:
    """What the user named: the keys of the recipe, and the options, which win. Checked here, so that a mistake names its place."""
    from crossroads.recipe import Recipe, read_toml

    stored = {} if path is None else read_toml(path)
    Recipe.from_mapping(stored, str(path))
    return stored | {key: value for key, value in options.items() if value is not None}


def _watching(*, json: bool, quiet: bool) -> AbstractContextManager[ConsoleWatcher | NotesOnly]:
    from crossroads.report.console import ConsoleWatcher, NotesOnly

    return nullcontext(NotesOnly(sys.stderr)) if quiet else ConsoleWatcher(sys.stderr if json else sys.stdout)


def main() -> None:
    """Run the command line; a user's mistake is one line on the standard error stream and exit code 2."""
    try:
        code = app(args=sys.argv[1:] or ["--help"], prog_name="crossroads", standalone_mode=False)
        if code == INTERRUPTED:  # what Typer makes of Ctrl-C
            _fail("stopped; a `fit` that finished an epoch goes on with --resume", code)
        sys.exit(code)
    except CrossroadsError as error:
        _fail(str(error), error.exit_code)
    except UsageError as error:
        where = f"{error.ctx.command_path} --help" if error.ctx else "crossroads --help"
        _fail(f"{error.format_message().rstrip('.')}; see {where}", error.exit_code)
    except BrokenPipeError:
        # The reader of our output is gone, as in `| head`; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        _fail(f"{error.filename or 'a file'} must be writable; received {error.strerror}; make room or choose another place", 2)


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
