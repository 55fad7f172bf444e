"""The composition root: labelled images in, a tested artifact out. The only module that knows every stage."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossroads import __version__, artifact
from crossroads._platform import has_gpu, peak_memory_mb
from crossroads.advice.candidates import Candidate
from crossroads.advice.evidence import Advice
from crossroads.advice.offers import offers_of
from crossroads.advice.recommend import recommend
from crossroads.data.audit import Audit
from crossroads.data.audit import audit as check
from crossroads.data.dataset import Dataset
from crossroads.data.images import Resize
from crossroads.data.labels import align
from crossroads.data.loading import Loaded, load_all, sizes
from crossroads.data.mirrors import flip_is_safe
from crossroads.data.readers import read
from crossroads.data.splits import Locked, split, split_digest
from crossroads.errors import DataError, RecipeError
from crossroads.evaluation import Evaluation
from crossroads.fitting import Fitted, Side, Task, carry_out, refusal_notes
from crossroads.lookup import resize_of
from crossroads.networks.construct import choose, object_name
from crossroads.predictor import Predictor
from crossroads.race import Entrant, Plan, keep_plan, race, stored_plan
from crossroads.recipe import Recipe, read_toml
from crossroads.run_folder import RunFolder
from crossroads.scoring import absent_classes, score, score_pixels, test_rows
from crossroads.strategies import refuse_chosen, relevant, resolve, strategy
from crossroads.training.checkpoint import history_csv
from crossroads.training.watch import Silent, Watcher

Source = object
"""Labelled images in any form that `read` takes."""

PARITY_IMAGES = (64, 256)
"""Least and most validation images on which model and graph are compared: the most up to `PARITY_SIZE` pixels, fewer above, since
Keras computes them layer by layer."""

PARITY_SIZE = 112

BUDGET = 600.0
"""Seconds that the choice of a strategy and its training may take where the user names no budget: ten minutes."""

MIRROR_SIZE = 32
"""Side in pixels at which images are compared with their mirror images where they are not decoded for training."""


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
class Divided:
    """Labelled images, read and split; nothing is decoded.

    Attributes:
        recipe: What the user asked for; without a share for a test where one is given.
        train: Training images.
        validation: Validation images.
        test: Locked, or None.
        side: Median of the shorter sides of the training images, in pixels.
        notes: What the user was told.
    """

    recipe: Recipe
    train: Dataset
    validation: Dataset
    test: Locked | None
    side: float
    notes: tuple[str, ...]


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
        resume: Go on with an unfinished run in `out`. A finished one is returned as it is.
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
        return _finished(folder, asked, given, watcher)
    with folder.claimed(asked, given=given, resume=resume) as claimed:
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
    refuse_chosen(asked)
    divided = divide(data if data is not None else asked.data, test if test is not None else asked.test, asked, watcher)
    named = backbones or ([asked.backbone] if asked.backbone else [])
    files = weights or ([asked.weights] if asked.weights else [])
    return recommend(divided.train, divided.side, offers_of(named, files, watcher, own=True), divided.recipe, watcher)


def divide(data: Source | None, test: Source | None, recipe: Recipe, watcher: Watcher) -> Divided:
    """Read and split; the test stays locked. Raises as `fit` does.

    Args:
        data: Labelled images.
        test: A separate test set, or None.
        recipe: What the user asked for.
        watcher: Is told what goes on.
    """
    if data is None:
        raise DataError("there must be labelled images", mend="give DATA, or `data` in the recipe")
    dataset = read(data, class_names=recipe.class_names)
    if len(dataset.classes) < 2:
        raise DataError(
            f"{dataset.origin}: a classifier needs at least two classes",
            received=f"{len(dataset.classes)} ({', '.join(dataset.classes)})",
            mend="add images of another class",
        )
    locked = None if test is None else test_rows(align(read(test, class_names=recipe.class_names), dataset.classes))
    parts = split(dataset, validation=recipe.validation, test=recipe.test_share, seed=recipe.seed, locked_test=locked)
    if locked is not None:
        recipe = replace(recipe, test_share=0.0)  # which then does nothing; so the stored recipe repeats the run
    notes = (*dataset.notes, *(() if locked is None else (f"test: {note}" for note in locked.notes)), *parts.notes)
    for note in notes:
        watcher.note(note)
    side = float(sizes(parts.train, seed=recipe.seed).median)
    return Divided(recipe, parts.train, parts.validation, parts.test, side, notes)


class _Tasks:
    """From a recipe to what is to be carried out; pixels that were decoded once serve every task of their size."""

    def __init__(self, divided: Divided, scratch: Path, own: Any, watcher: Watcher) -> None:
        self._divided, self._scratch, self._own, self._watcher = divided, scratch, own, watcher
        self._decoded: tuple[Resize, tuple[Loaded, Loaded]] | None = None

    def __call__(self, recipe: Recipe) -> Task:
        """The task of a recipe; images are decoded where it trains on pixels."""
        divided, record = self._divided, strategy(recipe.strategy)
        own = (
            self._own
            if recipe.backbone is not None and self._own is not None and recipe.backbone == object_name(self._own)
            else None
        )
        choice = choose(own or recipe.backbone or record.default_backbone)
        chosen = choice.record
        size = recipe.image_size or chosen.size_for(divided.side)
        resolved = resolve(recipe, chosen, images=len(divided.train), image_size=size, side=divided.side)
        chosen.check_size(size)
        pixels = None if record.frozen or resolved.freeze_to is not None else self._pixels(resize_of(resolved), resolved.strict)
        _refuse_flip(resolved, divided.train, pixels)
        return Task(resolved, choice, record, divided.train, divided.validation, pixels)

    def _pixels(self, resize: Resize, strict: bool) -> tuple[Loaded, Loaded]:
        if self._decoded is None or self._decoded[0] != resize:
            self._decoded = None  # before more are read
            train, validation = (
                load_all(
                    part,
                    resize,
                    strict=strict,
                    progress=partial(self._watcher.progress, f"decoding {name}"),
                    spill=self._scratch / f"{name}-{resize.size}-{resize.mode}.pixels",
                )
                for name, part in (("train", self._divided.train), ("validation", self._divided.validation))
            )
            self._decoded = (resize, (train, validation))
        return self._decoded[1]


def _train(divided: Divided, folder: RunFolder, own: Any, watcher: Watcher) -> Outcome:
    """Train as the recipe says, or where it leaves the strategy open, as the advice and a race decide."""
    recipe = divided.recipe
    tasks = _Tasks(divided, folder.scratch, own, watcher)
    if recipe.strategy != "auto":
        if recipe.budget is not None:
            raise RecipeError(
                "budget does nothing with a strategy that is named", received=recipe.budget, mend="leave one of them out"
            )
        task = tasks(recipe)
        return Outcome(task, carry_out(task, folder, watcher))
    refuse_chosen(recipe)
    identity = _identity(divided)
    plan = stored_plan(folder.plan, identity)
    if plan is None:
        plan = _planned(divided, own, watcher)
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


def _identity(divided: Divided) -> str:
    """Digest of the rows that a race is run on, and of the version; each trial looks at the images themselves as well."""
    hasher = hashlib.blake2b(digest_size=16)
    hasher.update(json.dumps([__version__, divided.train.classes]).encode())
    for side in (divided.train, divided.validation):
        hasher.update(np.ascontiguousarray(side.labels).tobytes())
        hasher.update(b"" if side.groups is None else np.ascontiguousarray(side.groups).tobytes())
    return hasher.hexdigest()


def _planned(divided: Divided, own: Any, watcher: Watcher) -> Plan:
    """Whom to race: those that nothing stands in the way of, and a head on frozen features in any case that memory holds."""
    recipe = divided.recipe
    named = own if own is not None else recipe.backbone
    offers = offers_of(() if named is None else (named,), (recipe.weights,) if recipe.weights else (), watcher)
    if not offers:
        return Plan((), recipe.budget or BUDGET, 0.0, {})
    advice = recommend(divided.train, divided.side, offers, replace(recipe, budget=recipe.budget or BUDGET), watcher)
    free = [one for one in advice.ranked if not one.obstacle]
    frozen = [one for one in advice.ranked if strategy(one.recipe.strategy).frozen]
    held = [one for one in frozen if one.fits]
    first: list[Candidate] = []
    if not free:
        first = [max(held or frozen or list(advice.ranked), key=lambda one: one.accuracy.value)]
        small = "budget" if first[0].fits else "memory"
        said = f"the {small} is too small for anything; {first[0].name} is trained all the same, in about {first[0].seconds:,.0f} s"
        watcher.note(said)
    elif not any(one in frozen for one in free):
        first = held[:1]
    for one in advice.ranked:
        if one.obstacle and one not in first:
            watcher.note(f"{one.name} is left out: it {one.obstacle}")
        elif one.obstacle and free:
            watcher.note(f"{one.name} is the first answer all the same, though it {one.obstacle}")
    free += first
    # The seconds are a CPU's: on a GPU nothing is known of them before a short turn has been taken.
    entrants = tuple(Entrant(one.recipe, one.accuracy, 0.0 if has_gpu() else one.seconds) for one in free)
    return Plan(entrants, advice.budget or BUDGET, advice.evidence.seconds, advice.to_json())


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
        scores = {"validation": _validation(predictor, fitted.validation, watcher), **_test(predictor, divided, fitted, watcher)}
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


def _validation(predictor: Predictor, side: Side, watcher: Watcher) -> dict[str, Any]:
    if side.pixels is None:
        return score(predictor, side.dataset, True, watcher, stage="validating")[1].to_json()
    return score_pixels(predictor, side.pixels, side.dataset).to_json()


def _test(predictor: Predictor, divided: Divided, fitted: Fitted, watcher: Watcher) -> dict[str, Any]:
    """The final evaluation: the one place where the test is unlocked."""
    refusals = {"train": fitted.train.refusals, "validation": fitted.validation.refusals}
    notes = [*divided.notes, *fitted.notes]
    facts: dict[str, Any] = {"test": None}
    if divided.test is not None:
        scored, evaluation = score(predictor, divided.test.unlock(), divided.recipe.strict, watcher)
        refusals["test"] = scored.refusals
        seen = _overlap(scored.digests, fitted)
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


def _overlap(digests: NDArray[np.uint8], fitted: Fitted) -> int:
    """How many of the images with these digests, uint8 (n, 16), were trained or validated on."""
    known = {digest.tobytes() for side in (fitted.train, fitted.validation) for digest in side.digests}
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
    named |= {name: str(source) for name, source in (("data", data), ("test", test)) if isinstance(source, str | Path)}
    named |= {name: value for name, value in options.items() if value is not None}
    asked = Recipe.from_mapping(named, "options")
    if "test_share" in named and asked.test_share and (test is not None or asked.test is not None):
        raise RecipeError(
            "test_share does nothing where a test set is given", received=asked.test_share, mend="leave one of them out"
        )
    return asked, set(named)


def _finished(folder: RunFolder, recipe: Recipe, given: set[str], watcher: Watcher) -> Run:
    """The run that is already there, if it is the one that is asked for."""
    metrics = artifact.read_metrics(folder.path)
    facts = metrics.get("asked") or artifact.open_verified(folder.path).facts["recipe"]
    stored = Recipe.from_mapping(facts, str(folder.path))
    folder.require_same(recipe, given, stored)
    folder.clear()  # of a run that was killed after its last file
    watcher.note(f"{folder.path} is finished; nothing was trained")
    return Run(folder.path, metrics)


def _refuse_flip(recipe: Recipe, train: Dataset, pixels: tuple[Loaded, Loaded] | None) -> None:
    if recipe.augmentation is None or not recipe.augmentation.flip:
        return
    seen = load_all(train, MIRROR_SIZE) if pixels is None else pixels[0]
    verdict = flip_is_safe(seen.pixels, seen.dataset.labels, seen.dataset.classes, seen.dataset.groups)
    if not verdict.safe:
        raise RecipeError(
            "a flip must not change what an image shows",
            received="; ".join(verdict.reasons),
            mend="set flip = false in [augmentation]",
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
