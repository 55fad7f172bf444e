"""Provides the functions of the library: labelled images in, a tested artifact out. Only this module knows every stage."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TypeVar, cast

from crossroads import artifact
from crossroads._runtime.keras_setup import require_usable_keras
from crossroads._runtime.process import process_settings, warnings_shown
from crossroads.advice.candidate_backbones import candidate_backbones
from crossroads.advice.evidence import Advice
from crossroads.advice.recommend import recommend
from crossroads.data.audit import Audit
from crossroads.data.audit import audit as check
from crossroads.data.labels import align
from crossroads.data.loading import refusal_notes, sample_notes
from crossroads.data.partition import BIASED, Partition, Source, absent_class_notes, count_seen, load_and_split, test_rows
from crossroads.data.readers import read
from crossroads.errors import RecipeError, option, without_effect
from crossroads.evaluation import Evaluation
from crossroads.networks._once import built_once
from crossroads.networks.construct import object_name, pinned
from crossroads.predictor import Predictor, Scored, score
from crossroads.progress import Note, Relay, Silent, Watcher, stage
from crossroads.race.anytime import fit_within_budget
from crossroads.race.candidates import BUDGET
from crossroads.recipe import Recipe, read_toml
from crossroads.report.compare import Comparison, compare_runs
from crossroads.report.default_watcher import watched
from crossroads.report.documents import document_run, require_report, write_documents, write_report_of, write_report_on
from crossroads.run.clock import Clock
from crossroads.run.finish import Outcome, Run, require_same_images, save_and_test, scored_images
from crossroads.run.folder import RunFolder
from crossroads.run.task import Tasks, refuse_trained_graph, require_valid
from crossroads.run.train import train
from crossroads.track import require_known, tracked

T = TypeVar("T")

READING = "reading the data"
"""The stage that finds the images and splits them."""


@process_settings()
@built_once()
def fit(
    data: Source | None = None,
    *,
    out: str | Path,
    backbone: object = None,
    test: Source | None = None,
    recipe: Recipe | str | Path | None = None,
    resume: bool = False,
    report: bool = True,
    thumbnails: bool = True,
    track: str | None = None,
    watcher: Watcher | None = None,
    **options: object,
) -> Run:
    """Trains a classifier on labelled images, tests it, and writes one artifact.

    Args:
        data: Labelled images in any form that `read` takes; None for those that the recipe names.
        out: A new folder for the artifact.
        backbone: A name from the catalog, the path of an ``.onnx``, ``.tflite``, ``.xml`` or ``.keras`` file, ``hf:OWNER/NAME`` for
            a graph on the Hugging Face hub, ``keras-hub:PRESET``, a `keras.Model`, or ``package.module:function``, which is
            imported and called.
        test: A separate test set; no image of it is read before the final evaluation.
        recipe: A recipe, or the path of a TOML file with some of its fields; None for the defaults.
        resume: Continue an unfinished run in `out`. A finished run of the same images is returned unchanged.
        report: Whether ``report.html`` and ``README.md`` are written into the artifact.
        thumbnails: Whether the artifact may contain small pictures of held-out images, for the report.
        track: ``tensorboard`` or ``mlflow`` to log the run there too; None to log it nowhere. The result is the same.
        watcher: Receives progress and warnings. If it is None, warnings go to `warnings`, and progress goes to the log, a terminal
            or a notebook.
        **options: Fields of `Recipe` that replace those of `recipe`.

    Returns:
        The finished run.

    Raises:
        CrossroadsError: A mistake that the user can fix. No half-written artifact is left.
    """
    started = time.perf_counter()
    relay = watched(watcher, trains=True)
    require_known(track)
    folder = RunFolder(out)
    asked, given = _requested(recipe, data, test, options | _name_of(backbone))
    if folder.finished and resume:
        return _finished(folder, asked, given, data, test, relay)
    require_usable_keras()
    _require_apart(folder.path, *_sources(data, test, asked))
    if resume and not folder.unfinished:
        relay.warning(Note(f"{folder.path} has no unfinished run; a new one starts", "nothing-to-resume", folder=str(folder.path)))
    refuse_trained_graph(asked)
    if asked.backbone is not None and not folder.unfinished:
        asked = replace(asked, backbone=pinned(asked.backbone, relay.note))  # a resumed or repeated run uses the same network
    try:
        with folder.claim(asked, given=given, resume=resume) as claimed:
            require_valid(claimed, _custom_network(backbone), relay.progress)
            clock = Clock(started, folder.spent, claimed.budget or (BUDGET if claimed.strategy == "auto" else None))
            with tracked(track, folder, claimed, relay) as tracking:
                relay = tracking.watcher
                with stage(relay.progress, READING):
                    partition = load_and_split(*_sources(data, test, claimed), claimed, relay)
                run = _trained(partition, _custom_network(backbone), folder, clock, relay)
                if report:
                    document_run(run, scored_images(partition), relay, thumbnails=thumbnails, seconds=clock.left)
                return tracking.finish(run)
    except Exception:
        relay.raise_again()  # the watcher's own error, even if a library replaced it
        raise


def _trained(partition: Partition, own: object, folder: RunFolder, clock: Clock, watcher: Relay) -> Run:
    """Trains, tests and saves. `own` is a network of the user's own as an object, or None."""
    if clock.budget is not None:
        return fit_within_budget(partition, own, folder, clock, watcher)
    task = Tasks(partition, folder.scratch, own, watcher).task_for(partition.recipe)
    return save_and_test(partition, Outcome(task, train(task, folder, watcher)), folder, clock, watcher)


@process_settings()
@built_once()
def advise(
    data: Source | None = None,
    *,
    backbones: Sequence[object] = (),
    weights: Sequence[str | None] = (),
    test: Source | None = None,
    recipe: Recipe | str | Path | None = None,
    watcher: Watcher | None = None,
    **options: object,
) -> Advice:
    """Measures which strategy fits labelled images, and gives the reasons.

    It trains probes. It also trains a small network and the best pretrained network for a few seconds each.

    Args:
        data: Labelled images in any form that `read` takes; None for those that the recipe names.
        backbones: The backbones to compare: names as in `fit`, or Keras models, or a single name. If empty, the default backbone
            and the two cheapest whose downloaded weights are cached.
        weights: The weights of each backbone, or one entry for all. If empty, ImageNet weights, or the weights that a network of
            your own has.
        test: A separate test set. It is not read, but no test set is then held out of `data`.
        recipe: A recipe without a strategy, or the path of a TOML file with some of its fields; None for the defaults.
        watcher: Receives progress and warnings; None as in `fit`.
        **options: Fields of `Recipe` that replace those of `recipe`; `budget` is in seconds, or as ``5m``.

    Returns:
        The advice. It is based only on the training split, which is the one that `fit` trains on with the same options.

    Raises:
        CrossroadsError: A mistake that the user can fix.
    """
    relay = watched(watcher)
    asked, _ = _requested(recipe, data, test, options)
    if asked.strategy != "auto":
        raise without_effect("strategy", repr(asked.strategy), "here, since all strategies are compared")
    named = [pinned(name, relay.note) if isinstance(name, str) else name for name in _several(backbones, asked.backbone)]
    files = _several(weights, asked.weights)
    _require_each_valid(asked, named, files, relay)
    require_usable_keras()
    with stage(relay.progress, READING):
        partition = load_and_split(*_sources(data, test, asked), asked, relay)
    considered = candidate_backbones(named, files, relay, own=True)
    advice = recommend(partition.train, partition.median_side, considered, partition.recipe, relay)
    return replace(advice, warnings=relay.warnings)  # includes those of reading


def _several(given: Sequence[T], of_recipe: T | None) -> Sequence[T]:
    """Returns what a call gave, one name or several, or else what its recipe names."""
    if isinstance(given, str):
        return [cast(T, given)]
    return given or ([] if of_recipe is None else [of_recipe])


def _require_each_valid(asked: Recipe, backbones: Sequence[object], weights: Sequence[str | None], watcher: Watcher) -> None:
    """Refuses a recipe that is invalid for one of the backbones. Does so before any image is read."""
    for backbone in backbones or (None,):
        name = backbone if isinstance(backbone, str) else None
        for file in (weights if backbones else ()) or (None,):
            own = backbone if name is None else None
            require_valid(replace(asked, backbone=name, weights=file or asked.weights), own, watcher.progress)


def _sources(data: Source | None, test: Source | None, recipe: Recipe) -> tuple[Source | None, Source | None]:
    """Returns the images and the test set that a call gives, or otherwise those that its recipe names."""
    return data if data is not None else recipe.data, test if test is not None else recipe.test


def _require_apart(out: Path, *sources: Source | None) -> None:
    """Raises `RecipeError` if the artifact would be inside a folder of images. Its files would be read as images next time."""
    for source in sources:
        if isinstance(source, str | Path) and Path(source).is_dir() and out.resolve().is_relative_to(Path(source).resolve()):
            raise RecipeError(
                f"{option('out')} must not be inside the image folder: its files would be read as images next time",
                code="out-inside-images",
                field="out",
                received=f"{out} in {source}",
                hint="choose another folder",
            )


@warnings_shown()
def evaluate(
    run: str | PathLike[str],
    data: Source,
    *,
    class_names: str | Path | None = None,
    strict: bool = False,
    watcher: Watcher | None = None,
) -> Evaluation:
    """Scores a finished artifact on labelled images. Their labels are matched to its classes by name.

    Args:
        run: The folder that `fit` wrote, or the `Run` that it returned.
        data: Labelled images in any form that `read` takes. If they have a split with a test part, only that part is scored.
        class_names: A file that names integer labels, if the artifact was trained with one.
        strict: Whether the first image that cannot be read is an error.
        watcher: Receives progress and warnings; None as in `fit`.

    Raises:
        CrossroadsError: The folder is not an artifact, a label is unknown to it, or no image is readable.
    """
    return _scored(run, data, class_names, strict, watcher)[1]


def _scored(
    run: str | PathLike[str], data: Source, class_names: str | Path | None, strict: bool, watcher: Watcher | None
) -> tuple[Scored, Evaluation]:
    """Scores a finished artifact on labelled images, as `evaluate` explains."""
    relay = watched(watcher)
    with stage(relay.progress, "loading the artifact"):
        predictor = Predictor.load(run)
    with stage(relay.progress, READING):
        dataset = test_rows(align(read(data, class_names=class_names), predictor.classes))
        about_samples = sample_notes(dataset)
    for warning in (*dataset.notes, *absent_class_notes(dataset), *about_samples):
        relay.warning(warning)
    scored, evaluation = score(predictor, dataset, strict, relay)
    for warning in refusal_notes("the data", scored.refusals):
        relay.warning(warning)
    seen = count_seen(scored.digests, artifact.read_seen(predictor.manifest))
    if seen:
        images = f"{seen} of {len(scored.dataset)} images"
        text = f"{images} were in the training or validation set of {predictor.manifest.folder}; {BIASED}"
        relay.warning(Note(text, "seen-in-training", seen=seen, images=len(scored.dataset)))
    return scored, replace(evaluation, seen_in_training=seen, warnings=relay.warnings)


@warnings_shown()
def write_report(
    run: str | PathLike[str],
    data: Source | None = None,
    *,
    out: str | Path | None = None,
    class_names: str | Path | None = None,
    thumbnails: bool = True,
    watcher: Watcher | None = None,
) -> Path:
    """Writes the report of a run: one HTML file that loads nothing.

    Args:
        run: The folder that `fit` wrote, or the `Run` that it returned.
        data: Labelled images to report on, in any form that `read` takes; None for the images that the run was scored on.
        out: Path of the file. None for ``report.html``: in the artifact without `data`, otherwise in the working directory.
        class_names: A file that names integer labels, if the artifact was trained with one.
        thumbnails: Whether a report on `data` may contain small pictures.
        watcher: Receives progress and warnings; None as in `fit`.

    Returns:
        The path of the file.

    Raises:
        CrossroadsError: The folder is not an artifact, a label is unknown to it, no image is readable, or `out` is another file.
    """
    if data is None:
        return write_documents(run) if out is None else write_report_of(run, out)
    target = require_report(artifact.REPORT if out is None else out)
    scored, evaluation = _scored(run, data, class_names, False, watcher)
    return write_report_on(run, scored, evaluation, target, thumbnails=thumbnails)


@warnings_shown()
def compare(*runs: str | PathLike[str]) -> Comparison:
    """Puts finished artifacts side by side.

    If two of them were tested on the same images, their difference is computed image by image, which is far more precise than a
    comparison of their intervals.

    Args:
        *runs: At least two artifacts. The first is the one that the others are compared with.

    Raises:
        CrossroadsError: There are fewer than two, or a folder is not an artifact.
    """
    return compare_runs(runs)


@warnings_shown()
def audit(data: Source, *, min_images: int = 10, watcher: Watcher | None = None) -> Audit:
    """Checks labelled images before training. Every image is read once.

    Args:
        data: Labelled images in any form that `read` takes.
        min_images: Classes with fewer images than this are reported.
        watcher: Receives progress and warnings; None as in `fit`.
    """
    relay = watched(watcher)
    with stage(relay.progress, READING):
        dataset = read(data)
    for note in dataset.notes:
        relay.warning(note)
    return check(dataset, min_images=min_images, progress=partial(relay.progress, "checking"))


def _requested(
    recipe: Recipe | str | Path | None, data: Source | None, test: Source | None, options: Mapping[str, object]
) -> tuple[Recipe, set[str]]:
    """Adds the options and the paths of the sources to a recipe. Also returns the names of the fields that the user gave."""
    named = _named_in(recipe)
    for name, source in (("data", data), ("test", test)):
        if isinstance(source, str | Path):
            named[name] = str(source)
        elif source is not None:  # the path in the recipe is not used
            named.pop(name, None)
    named |= {name: value for name, value in options.items() if value is not None}
    asked = Recipe.from_mapping(named)
    if "test_fraction" in named and asked.test_fraction and (test is not None or asked.test is not None):
        raise without_effect("test_fraction", asked.test_fraction, "if a test set is given", hint="leave one of them out")
    return asked, set(named)


def _named_in(recipe: Recipe | str | Path | None) -> dict[str, object]:
    """Returns the fields of a recipe that differ from the defaults. For a recipe file, returns the fields in the file."""
    if isinstance(recipe, Recipe):
        return {name: value for name, value in recipe.to_mapping().items() if value != getattr(Recipe(), name)}
    named = {} if recipe is None else read_toml(recipe)
    Recipe.from_mapping(named, str(recipe))
    return named


def _finished(
    folder: RunFolder, recipe: Recipe, given: set[str], data: Source | None, test: Source | None, watcher: Watcher
) -> Run:
    """Returns the finished run in a folder, after a check that it has the requested recipe and images."""
    metrics = artifact.read_metrics(folder.path)
    facts = artifact.open_verified(folder.path).facts
    stored = Recipe.from_mapping(metrics.get("asked") or facts["recipe"], str(folder.path))
    folder.require_same(recipe, given, stored)
    source, held_out = _sources(data, test, recipe)
    if source is not None:
        require_same_images(load_and_split(source, held_out, stored, Silent()), facts["data"], metrics)
    folder.remove_working_files()  # a run that was killed after its last file leaves its checkpoints
    watcher.note(Note(f"{folder.path} is finished; nothing was trained", "run-finished", folder=str(folder.path)))
    return Run(folder.path, metrics)


def _name_of(backbone: object) -> dict[str, object]:
    """Returns the field `backbone` of a recipe for a backbone in any form."""
    if backbone is None:
        return {}
    if isinstance(backbone, str | Path):
        return {"backbone": str(backbone)}
    return {"backbone": object_name(backbone)}


def _custom_network(backbone: object) -> object:
    return None if backbone is None or isinstance(backbone, str | Path) else backbone
