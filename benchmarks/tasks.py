"""The sets of images that strategies are compared on: each with a part to train on, one that chooses, and a test for neither."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks._measure import SHARED

VALIDATION_IMAGES, TEST_IMAGES = 1_500, 3_000


@dataclass(frozen=True, slots=True)
class Task:
    """One set of images.

    Attributes:
        name: What the rows are called.
        images: From a seed to a `Dataset` whose rows say their split.
        image_size: Side in pixels at which a pretrained network sees them; None for the backbone's own size.
        shared: Whether it needs the shared data.
        source: What its images were drawn from. Tasks of one source share test images, or are of one kind.
        tuned_epochs: Of the strategies that train a pretrained network; None for those that `fit` takes.
    """

    name: str
    images: Callable[[int], Any]
    image_size: int | None
    shared: bool
    source: str
    tuned_epochs: int | None = None


def _marked(parts: dict[int, Any]) -> Any:
    """One data set of parts of the same data set, each marked as a side of the split."""
    chosen = [replace(part, splits=np.full(len(part), side, np.uint8)) for side, part in parts.items()]
    columns = ("indices", "labels", "splits", *(() if chosen[0].groups is None else ("groups",)))
    return replace(chosen[0], **{name: np.concatenate([getattr(part, name) for part in chosen]) for name in columns}, notes=())


def _some(dataset: Any, most: int, rng: np.random.Generator) -> Any:
    return dataset.select(np.sort(rng.permutation(len(dataset))[:most]))


def draw_each(dataset: Any, count: int, rng: np.random.Generator) -> Any:
    """`count` rows of each class, from as many groups as can be."""
    order = rng.permutation(len(dataset))
    if dataset.groups is not None:
        turn: dict[int, int] = {}
        ranks = []
        for group in dataset.groups[order]:
            ranks.append(turn.get(int(group), 0))
            turn[int(group)] = ranks[-1] + 1
        order = order[np.argsort(ranks, kind="stable")]
    rows = np.concatenate([order[dataset.labels[order] == label][:count] for label in range(len(dataset.classes))])
    return dataset.select(np.sort(rows))


def _side(dataset: Any, side: int) -> Any:
    return dataset.select(dataset.splits == side)


def gtsrb(seed: int, *, each: int | None = None, images: int | None = None) -> Any:
    """Takes 70 % of the tracks for training (`each` images per class, or `images` in all), and splits the other tracks in half."""
    import crossroads
    from crossroads.data.dataset import TEST, TRAIN, VALIDATION
    from crossroads.data.splits import split

    parts = split(crossroads.read(SHARED / "gtsrb_train_32px.tar.xz"), validation=0.15, test=0.15, seed=seed)
    rng = np.random.default_rng(seed)
    train, validation = parts.train, parts.validation
    if each is not None:
        train, validation = draw_each(train, each, rng), draw_each(validation, max(2, each // 5), rng)
    elif images is not None:
        train = _some(train, images, rng)
    test = _some(parts.test.unseal(), TEST_IMAGES, rng)
    return _marked({TRAIN: train, VALIDATION: _some(validation, VALIDATION_IMAGES, rng), TEST: test})


def cifar10(seed: int, *, each: int) -> Any:
    """Takes `each` images per class for training, a fifth as many for validation, and the test of the data."""
    import crossroads
    from crossroads.data.dataset import TEST, TRAIN, VALIDATION
    from crossroads.data.splits import split

    found = crossroads.read(SHARED / "cifar10_subset.tar")
    rest = found.select(found.splits != TEST)
    parts = split(replace(rest, splits=None), validation=0.1, test=0.0, seed=seed)
    rng = np.random.default_rng(seed)
    train, validation = draw_each(parts.train, each, rng), draw_each(parts.validation, max(2, each // 5), rng)
    return _marked({TRAIN: train, VALIDATION: validation, TEST: _side(found, TEST)})


def ants_bees(seed: int) -> Any:
    """The photographs' own train part, a fifth of it to choose by, and what the data calls val as the test."""
    import crossroads
    from crossroads.data.dataset import TEST, TRAIN, VALIDATION
    from crossroads.data.splits import split

    found = crossroads.read(SHARED / "ants_bees.tar")
    parts = split(replace(_side(found, TRAIN), splits=None), validation=0.2, test=0.0, seed=seed)
    return _marked({TRAIN: parts.train, VALIDATION: parts.validation, TEST: _side(found, VALIDATION)})


def flowers(seed: int) -> Any:
    """The photographs of flowers, with 15 % to choose by and 15 % as the test."""
    import crossroads
    from crossroads.data.dataset import TEST, TRAIN, VALIDATION
    from crossroads.data.splits import split

    parts = split(crossroads.read(SHARED / "flowers5.tar"), validation=0.15, test=0.15, seed=seed)
    return _marked({TRAIN: parts.train, VALIDATION: parts.validation, TEST: parts.test.unseal()})


def ants_bees_whole(_seed: int) -> Any:
    """The photographs as they come: train to learn from, val to choose by, no test."""
    import crossroads

    return crossroads.read(SHARED / "ants_bees.tar")


def quiz_pickles(seed: int) -> Any:
    """The 100 and 20 signs of the notes' first program."""
    import pickle

    import crossroads
    from crossroads.data.dataset import TEST, TRAIN, VALIDATION
    from crossroads.data.splits import split

    folder = SHARED / "small_traffic_set"
    sides = [pickle.loads((folder / name).read_bytes()) for name in ("small_train_traffic.p", "small_test_traffic.p")]  # noqa: S301
    images, labels = (np.concatenate([np.asarray(side[key]) for side in sides]) for key in ("features", "labels"))
    found = crossroads.read((images, labels))
    first = len(sides[0]["labels"])
    parts = split(found.select(range(first)), validation=0.2, test=0.0, seed=seed)
    return _marked({TRAIN: parts.train, VALIDATION: parts.validation, TEST: found.select(range(first, len(found)))})


def digits(seed: int, *, each: int) -> Any:
    """`each` of scikit-learn's digits a class to train on, a fifth as many more to choose by, the rest as the test."""
    import crossroads
    from crossroads.demo import digits as all_digits

    return _drawn(crossroads.read(all_digits()), each, seed)


def folders(seed: int, *, name: str, each: int) -> Any:
    """`each` photographs a class to train on, a fifth as many more to choose by, the rest as the test."""
    import crossroads

    return _drawn(replace(crossroads.read(SHARED / f"{name}.tar"), splits=None), each, seed)


def shapes(seed: int, *, each: int) -> Any:
    """Outlines of four shapes, drawn at any place, size, angle and colour on any ground with noise."""
    from PIL import Image, ImageDraw

    import crossroads

    rng = np.random.default_rng([seed, 1])
    corners = {"triangle": 3, "square": 4, "pentagon": 5, "circle": 60}
    images, labels = [], []
    for name, count in corners.items():
        for _ in range(each + max(2, each // 5) + 150):
            ground, line = rng.integers(0, 256, (2, 3))
            while np.abs(ground - line).sum() < 150:
                line = rng.integers(0, 256, 3)
            picture = Image.new("RGB", (192, 192), tuple(map(int, ground)))
            radius, turn = rng.uniform(30, 80), rng.uniform(0, 2 * np.pi)
            centre = rng.uniform(radius, 192 - radius, 2)
            angles = turn + np.arange(count) * 2 * np.pi / count
            points = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
            ImageDraw.Draw(picture).line(
                [*map(tuple, points), tuple(points[0])], fill=tuple(map(int, line)), width=9, joint="curve"
            )
            small = np.asarray(picture.resize((48, 48), Image.Resampling.BOX), np.float64) + rng.normal(0, 12, (48, 48, 3))
            images.append(small.clip(0, 255).astype(np.uint8))
            labels.append(name)
    return _drawn(crossroads.read((np.stack(images), np.array(labels))), each, seed)


def _drawn(found: Any, each: int, seed: int) -> Any:
    from crossroads.data.dataset import TEST, TRAIN, VALIDATION

    rng = np.random.default_rng(seed)
    sides: dict[int, list[Any]] = {TRAIN: [], VALIDATION: [], TEST: []}
    for label in range(len(found.classes)):
        rows = rng.permutation(np.flatnonzero(found.labels == label))
        edge = each + max(2, each // 5)
        for side, part in zip(sides, (rows[:each], rows[each:edge], rows[edge:]), strict=True):
            sides[side].append(part)
    return _marked({side: found.select(np.sort(np.concatenate(rows))) for side, rows in sides.items()})


TASKS: tuple[Task, ...] = (
    Task("ants/bees", ants_bees, None, shared=True, source="ants/bees"),
    Task("CIFAR-10, 10 per class", lambda seed: cifar10(seed, each=10), 96, shared=True, source="CIFAR-10"),
    Task("CIFAR-10, 100 per class", lambda seed: cifar10(seed, each=100), 96, shared=True, source="CIFAR-10"),
    Task("CIFAR-10, 900 per class", lambda seed: cifar10(seed, each=900), 96, shared=True, source="CIFAR-10"),
    Task("GTSRB, 10 per class", lambda seed: gtsrb(seed, each=10), 96, shared=True, source="GTSRB"),
    Task("GTSRB, 4,300 images", lambda seed: gtsrb(seed, images=4_300), 96, shared=True, source="GTSRB"),
    Task("GTSRB, all", gtsrb, 96, shared=True, source="GTSRB"),
    Task("digits, 10 per class", lambda seed: digits(seed, each=10), 96, shared=False, source="digits"),
    Task("digits, 90 per class", lambda seed: digits(seed, each=90), 96, shared=False, source="digits"),
    Task("quiz pickles", quiz_pickles, 96, shared=True, source="GTSRB"),
    Task("drawn shapes, 20 per class", lambda seed: shapes(seed, each=20), 96, shared=False, source="drawn shapes"),
    Task("drawn shapes, 200 per class", lambda seed: shapes(seed, each=200), 96, shared=False, source="drawn shapes"),
    *(
        Task(f"{name}, {each} per class", partial(folders, name=name, each=each), 96, shared=True, source=name)
        for name, most in (("flowers5", 100), ("eurosat10", 100), ("sign_digits10", 60), ("trashnet6", 100))
        for each in (20, most)
    ),
)

WHOLE = Task("ants/bees, as they come", ants_bees_whole, None, shared=True, source="ants/bees", tuned_epochs=4)


def task(name: str) -> Task:
    return next(task for task in (*TASKS, WHOLE) if task.name == name)
