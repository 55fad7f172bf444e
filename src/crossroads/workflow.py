"""The composition root: labelled images in, a tested artifact out. The only module that knows every stage."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads import artifact
from crossroads._platform import peak_memory_mb
from crossroads.advice.evidence import Advice
from crossroads.advice.offers import offers_of
from crossroads.advice.recommend import recommend
from crossroads.data.audit import Audit
from crossroads.data.audit import audit as check
from crossroads.data.images import Resize
from crossroads.data.labels import align
from crossroads.data.loading import digests_of, load_all
from crossroads.data.readers import read
from crossroads.data.splits import split_digest
from crossroads.errors import DataError, RecipeError
from crossroads.evaluation import Evaluation
from crossroads.fitting import Fitted, Side, Task, carry_out, refusal_notes
from crossroads.lookup import resize_of
from crossroads.networks.construct import object_name
from crossroads.planning import Divided, Source, Tasks, divide, identity_of, planned, require_sound
from crossroads.predictor import Predictor
from crossroads.race.records import keep_plan, stored_plan
from crossroads.race.running import race
from crossroads.recipe import Recipe, read_toml
from crossroads.run_folder import RunFolder
from crossroads.scoring import absent_classes, score, score_pixels, test_rows
from crossroads.strategies import relevant, strategy
from crossroads.training.checkpoint import history_csv
from crossroads.training.watch import Silent, Watcher

PARITY_IMAGES = (64, 256)
"""Least and most validation images on which model and graph are compared: the most up to `PARITY_SIZE` pixels, fewer above, since
Keras computes them layer by layer."""

PARITY_SIZE = 112


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run.

    Attributes:
        artifact: The folder.
        metrics: What was measured, as in ``metrics.json``: backbone, strategy, seconds, peak_memory_mb, validation, test, …
    """

    artifact: Path
    metrics: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The metrics with the folder, for a program to read."""
        return {"artifact": str(self.artifact), **self.metrics}


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What was trained and is to be tested.

    Attributes:
        task: What for.
        fitted: What came of it.
        facts: More for ``metrics.json``, such as the advice and the race.
    """

    task: Task
    fitted: Fitted
    facts: dict[str, Any] = field(default_factory=dict)


def fit(
    data: Source | None = None,
    *,
    out: str | Path,
    backbone: Any = None,
    test: Source | None = None,
    recipe: Recipe | str | Path | None = None,
    resume: bool = False,
    watcher: Watcher | None = None,
    **options: Any,
) -> Run:
    """Train a classifier on labelled images, test it, and leave one artifact.

    Args:
        data: Labelled images in any form that `read` takes; None for the recipe's own.
        out: A new folder for the artifact.
        backbone: A name from the catalog, or a network of your own: a `keras.Model`, the path of a ``.keras`` file, or
            ``package.module:function``, which is imported and called.
        test: A separate test set; nothing reads it before the final evaluation.
        recipe: Every choice, or the path of a TOML file with some; None for the defaults.
        resume: Go on with an unfinished run in `out`. A finished one is returned as it is, if it is of these images.
        watcher: Is told what goes on.
        **options: Fields of `Recipe` that replace those of `recipe`.

    Returns:
        The finished run.

    Raises:
        CrossroadsError: A mistake that the user can mend; nothing is left half written.
    """
    started = time.perf_counter()
    watcher = watcher or Silent()
    folder = RunFolder(out)
    asked, given = _asked(recipe, data, test, options | _name_of(backbone))
    if folder.finished and resume:
        return _finished(folder, asked, given, data, test, watcher)
    with folder.claimed(asked, given=given, resume=resume) as claimed:
        require_sound(claimed, _own(backbone))
        source = data if data is not None else claimed.data
        held_out = test if test is not None else claimed.test
        divided = divide(source, held_out, claimed, watcher)
        trained = _train(divided, folder, _own(backbone), watcher)
        return _test_and_save(divided, trained, folder, started, watcher)


def advise(
    data: Source | None = None,
    *,
    backbones: Sequence[Any] = (),
    weights: Sequence[str | None] = (),
    test: Source | None = None,
    recipe: Recipe | str | Path | None = None,
    watcher: Watcher | None = None,
    **options: Any,
) -> Advice:
    """Measure which strategy fits labelled images, and say why. Nothing is trained but probes and, for a moment, a small network.

    Args:
        data: Labelled images in any form that `read` takes; None for the recipe's own.
        backbones: Those to compare: names of the catalog, or networks of your own; none for those whose weights are in the cache,
            or for the usual one.
        weights: Of each of them, or one for all; none for their ImageNet weights, or for those that a network of your own brings.
        test: A separate test set. It is not looked at; but then no test is held out of `data`.
        recipe: Options that hold for every strategy, or the path of a TOML file with some.
        watcher: Is told what goes on.
        **options: Fields of `Recipe` that replace those of `recipe`; `budget` is in seconds.

    Returns:
        The advice, drawn from the training split alone: that which `fit` with the same options trains on.

    Raises:
        CrossroadsError: A mistake that the user can mend.
    """
    watcher = watcher or Silent()
    asked, _ = _asked(recipe, data, test, options)
    if asked.strategy != "auto":
        raise RecipeError("advice is on the choice of a strategy", received=f"strategy {asked.strategy!r}", mend="leave it out")
    for named in backbones or (None,):
        for file in (weights if backbones else ()) or (None,):
            known = named if isinstance(named, str) else asked.backbone
            require_sound(replace(asked, backbone=known, weights=file or asked.weights), named if known is None else None)
    divided = divide(data if data is not None else asked.data, test if test is not None else asked.test, asked, watcher)
    named = backbones or ([asked.backbone] if asked.backbone else [])
    files = weights or ([asked.weights] if asked.weights else [])
    return recommend(divided.train, divided.side, offers_of(named, files, watcher, own=True), divided.recipe, watcher)


def _train(divided: Divided, folder: RunFolder, own: Any, watcher: Watcher) -> Outcome:
    """Train as the recipe says, or where it leaves the strategy open, as the advice and a race decide."""
    recipe = divided.recipe
    tasks = Tasks(divided, folder.scratch, own, watcher)
    if recipe.strategy != "auto":
        task = tasks(recipe)
        return Outcome(task, carry_out(task, folder, watcher))
    identity = identity_of(divided)
    plan = stored_plan(folder.plan, identity)
    if plan is None:
        plan = planned(divided, own, watcher)
        keep_plan(plan, folder.plan, identity)
    if not plan.entrants:
        if recipe.backbone is None:
            watcher.note("nothing pretrained to choose from: training from scratch")
        if recipe.budget is not None:
            watcher.note("there is one way to train, which the budget does not shorten; --epochs does")
        task = tasks(replace(relevant(recipe, strategy("from-scratch")), budget=None))
        return Outcome(task, carry_out(task, folder, watcher), {"asked": recipe.to_mapping()})
    raced = race(plan, tasks, folder, watcher)
    facts = {"asked": recipe.to_mapping(), "advice": plan.advice, "race": raced.facts}
    return Outcome(raced.task, raced.fitted, facts)


def evaluate(
    run: str | Path,
    data: Source,
    *,
    class_names: str | Path | None = None,
    strict: bool = False,
    watcher: Watcher | None = None,
) -> Evaluation:
    """Score a finished artifact on labelled images, which are brought to its classes by name.

    Args:
        run: The folder that `fit` left.
        data: Labelled images in any form that `read` takes. Where they bring a split with a test part, that part is scored.
        class_names: A file that names integer labels, where the artifact was trained with one.
        strict: Whether the first image that cannot be read is an error.
        watcher: Is told what goes on.

    Raises:
        CrossroadsError: No artifact, a label that it does not know, no readable image.
    """
    watcher = watcher or Silent()
    predictor = Predictor.load(run)
    dataset = test_rows(align(read(data, class_names=class_names), predictor.classes))
    for note in (*dataset.notes, *absent_classes(dataset)):
        watcher.note(note)
    scored, evaluation = score(predictor, dataset, strict, watcher)
    for note in refusal_notes("the data", scored.refusals):
        watcher.note(note)
    return evaluation


def audit(data: Source, *, min_images: int = 10, watcher: Watcher | None = None) -> Audit:
    """Check labelled images before training; every image is read once.

    Args:
        data: Labelled images in any form that `read` takes.
        min_images: Classes with fewer are reported.
        watcher: Is told what goes on.
    """
    watcher = watcher or Silent()
    dataset = read(data)
    for note in dataset.notes:
        watcher.note(note)
    return check(dataset, min_images=min_images, progress=partial(watcher.progress, "checking"))


def _test_and_save(divided: Divided, trained: Outcome, folder: RunFolder, started: float, watcher: Watcher) -> Run:
    task, fitted = trained.task, trained.fitted
    contents = artifact.Contents(
        model=fitted.model,
        classes=divided.train.classes,
        resize=resize_of(task.recipe),
        recipe=task.recipe,
        history=history_csv(fitted.history),
        data=_data_facts(divided, fitted),
        parity_images=_spread(fitted.validation, resize_of(task.recipe)),
    )
    with artifact.draft(folder.path, contents) as draft:
        # What is scored is what was saved, as it will be loaded.
        predictor = Predictor.load(draft.path)
        validation = _validation(predictor, fitted, watcher)
        notes = _seen_by_validation(validation)
        scores = {"validation": validation, **_test(predictor, divided, fitted, notes, watcher)}
        cost = {"seconds": round(folder.spent + time.perf_counter() - started, 3), "peak_memory_mb": peak_memory_mb()}
        metrics = {
            "backbone": task.choice.record.name,
            "strategy": task.strategy.name,
            **cost,
            **fitted.facts,
            **scores,
            **trained.facts,
        }
        draft.finish(metrics)
    return Run(folder.path, metrics)


def _spread(side: Side, resize: Resize) -> NDArray[np.uint8]:
    """Images from all over, since those of one class often stand together."""
    least, most = PARITY_IMAGES
    count = max(least, min(most, most * PARITY_SIZE**2 // resize.size**2, len(side.dataset)))
    rows = np.linspace(0, len(side.dataset) - 1, min(count, len(side.dataset))).astype(np.int64)
    return load_all(side.dataset.select(rows), resize).pixels if side.pixels is None else side.pixels[rows]


def _validation(predictor: Predictor, fitted: Fitted, watcher: Watcher) -> dict[str, Any]:
    side = fitted.validation
    if side.pixels is None:
        evaluation = score(predictor, side.dataset, True, watcher, stage="validating")[1]
    else:
        evaluation = score_pixels(predictor, side.pixels, side.dataset)
    return evaluation.to_json() | {"seen_in_training": _overlap(side.digests, fitted.train)}


def _test(predictor: Predictor, divided: Divided, fitted: Fitted, told_now: list[str], watcher: Watcher) -> dict[str, Any]:
    """The final evaluation: the one place where the test is unlocked. With the notes of the run, of which some are told now."""
    refusals = {"train": fitted.train.refusals, "validation": fitted.validation.refusals}
    notes = [*divided.notes, *fitted.notes, *told_now]
    for note in told_now:
        watcher.note(note)
    facts: dict[str, Any] = {"test": None}
    if divided.test is not None:
        scored, evaluation = score(predictor, divided.test.unlock(), divided.recipe.strict, watcher)
        refusals["test"] = scored.refusals
        seen = _overlap(scored.digests, fitted.train, fitted.validation)
        told = list(refusal_notes("the test", scored.refusals))
        if seen:
            told.append(f"{seen} of {len(scored.dataset)} test images are also in train or validation; the test scores flatter")
        for note in told:
            watcher.note(note)
        notes += told
        digest = split_digest(scored.digests, scored.dataset.labels, divided.train.classes)
        facts = {"test": evaluation.to_json() | {"seen_in_training": seen, "digest": digest}}
    return facts | {
        "refused": {side: [{"name": r.name, "reason": r.reason} for r in refused] for side, refused in refusals.items()},
        "notes": notes,
    }


def _seen_by_validation(scores: dict[str, Any]) -> list[str]:
    """A sentence where validation, which chooses, has images of train."""
    seen = scores["seen_in_training"]
    said = f"{seen} of {scores['n']} validation images are also in train, which favours what learns by heart"
    return [f"{said}; `crossroads audit` lists them"] if seen else []


def _overlap(digests: NDArray[np.uint8], *sides: Side) -> int:
    """How many of the images with these digests, uint8 (n, 16), are in these sides."""
    known = {digest.tobytes() for side in sides for digest in side.digests}
    return sum(digest.tobytes() in known for digest in digests)


def _asked(
    recipe: Recipe | str | Path | None, data: Source | None, test: Source | None, options: dict[str, Any]
) -> tuple[Recipe, set[str]]:
    """The recipe with the options in it and the paths where the sources are paths, and the fields that the user named."""
    if isinstance(recipe, Recipe):
        named = {name: value for name, value in recipe.to_mapping().items() if value != getattr(Recipe(), name)}
    else:
        named = {} if recipe is None else read_toml(recipe)
        Recipe.from_mapping(named, str(recipe))
    for name, source in (("data", data), ("test", test)):
        if isinstance(source, str | Path):
            named[name] = str(source)
        elif source is not None:  # what stands in the recipe is not what is used
            named.pop(name, None)
    named |= {name: value for name, value in options.items() if value is not None}
    asked = Recipe.from_mapping(named, "options")
    if "test_share" in named and asked.test_share and (test is not None or asked.test is not None):
        raise RecipeError(
            "test_share does nothing where a test set is given", received=asked.test_share, mend="leave one of them out"
        )
    return asked, set(named)


def _finished(
    folder: RunFolder, recipe: Recipe, given: set[str], data: Source | None, test: Source | None, watcher: Watcher
) -> Run:
    """The run that is already there, if it is the one that is asked for."""
    metrics = artifact.read_metrics(folder.path)
    facts = artifact.open_verified(folder.path).facts
    stored = Recipe.from_mapping(metrics.get("asked") or facts["recipe"], str(folder.path))
    folder.require_same(recipe, given, stored)
    if data is not None:
        _require_same_images(divide(data, test, stored, Silent()), facts["data"], metrics)
    folder.clear()  # of a run that was killed after its last file
    watcher.note(f"{folder.path} is finished; nothing was trained")
    return Run(folder.path, metrics)


def _require_same_images(divided: Divided, facts: dict[str, Any], metrics: dict[str, Any]) -> None:
    """Raises `DataError` where the images or labels of a side are not those that a finished run has, wherever they lie now."""
    known = {name: facts["splits"][name]["digest"] for name in ("train", "validation")}
    sides = {"train": divided.train, "validation": divided.validation}
    if divided.test is not None:
        known["test"], sides["test"] = (metrics["test"] or {}).get("digest"), divided.test.unlock()
    for name, rows in sides.items():
        refused = {row["name"].removeprefix(facts["origin"]) for row in metrics["refused"].get(name, ())}
        kept = rows.select([row for row in range(len(rows)) if rows.name(row).removeprefix(rows.origin) not in refused])
        if split_digest(digests_of(kept), kept.labels, kept.classes) != known[name]:
            raise DataError(
                f"a finished run is resumed on the images and labels it was made of, and those of {name} are others",
                received=kept.origin,
                mend="choose another --out",
            )


def _data_facts(divided: Divided, fitted: Fitted) -> dict[str, Any]:
    """What the artifact says of its data. The test's digest stands with its scores: nothing reads it before."""
    sides = {"train": fitted.train, "validation": fitted.validation}
    splits: dict[str, Any] = {
        name: {"n": len(side.dataset), "digest": split_digest(side.digests, side.dataset.labels, divided.train.classes)}
        for name, side in sides.items()
    }
    if divided.test is not None:
        splits["test"] = {"n": divided.test.n}
    both = np.concatenate([side.digests for side in sides.values()])
    labels = np.concatenate([side.dataset.labels for side in sides.values()])
    return {
        "origin": fitted.train.dataset.origin,
        "n": len(labels),
        "digest": split_digest(both, labels, divided.train.classes),
        "splits": splits,
    }


def _name_of(backbone: Any) -> dict[str, Any]:
    """The backbone as the recipe names it."""
    if backbone is None:
        return {}
    if isinstance(backbone, str | Path):
        return {"backbone": str(backbone)}
    return {"backbone": object_name(backbone)}


def _own(backbone: Any) -> Any:
    return None if backbone is None or isinstance(backbone, str | Path) else backbone
