"""Takes a part of the images if a budget is too short for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from crossroads.advice.sample import sample
from crossroads.data.partition import Partition
from crossroads.progress import Note, Watcher
from crossroads.run.clock import Clock

IMAGES_PER_SECOND = 20.0
"""The speed is measured only if the budget requires more images per second than this, so that most runs do not pay for it."""

EXTRACTION_FRACTION, LEAST_SECONDS = 0.6, 4.0
"""If there is no time for all images, reading them and computing features gets this fraction of the remaining budget, but at least
this number of seconds. The heads and the artifact get the rest. With a fraction of 0.75 and a budget of 60 s, a run on 8,000
photographs took 80.6 of the 81 s that are allowed, on a busy machine."""


def affordable_fraction(partition: Partition, clock: Clock, seconds_per_image: Callable[[], float | None], views: int = 1) -> float:
    """Returns the fraction of the images whose features there is time for, at most 1.

    Args:
        partition: The images.
        clock: The time of the run.
        seconds_per_image: Measures the seconds to read an image and to compute its features; None if they are in the cache.
        views: Versions of each training image.
    """
    total = views * len(partition.train) + len(partition.validation) + (0 if partition.test is None else partition.test.n)
    if clock.left == float("inf") or total < IMAGES_PER_SECOND * clock.left:
        return 1.0
    seconds = seconds_per_image()
    return 1.0 if seconds is None else min(1.0, max(LEAST_SECONDS, EXTRACTION_FRACTION * clock.left) / (seconds * total))


def part_of(partition: Partition, fraction: float, budget: float | None, watcher: Watcher) -> tuple[Partition, int | None]:
    """Returns a random part of each split, and the number of test images to score.

    The same fraction gives the same images. If it is 1, all images are used, and the number is None.

    Args:
        partition: The images.
        fraction: The fraction of them.
        budget: The budget in seconds, for the warning.
        watcher: Receives a warning if not all images are used.
    """
    if fraction >= 1.0:
        return partition, None
    seed, classes = partition.recipe.seed, len(partition.train.classes)
    train = partition.train.select(sample(partition.train, max(2 * classes, int(fraction * len(partition.train))), seed))
    validation = partition.validation.select(_random(len(partition.validation), fraction, seed))
    text = (
        f"the budget of {budget:g} s is too short for all images: {len(train):,} of {len(partition.train):,} training images "
        "are used; a longer budget uses all"
    )
    watcher.warning(Note(text, "part-of-images", used=len(train), total=len(partition.train), budget=budget))
    test_images = None if partition.test is None else max(1, int(fraction * partition.test.n))
    return replace(partition, train=train, validation=validation), test_images


def _random(count: int, fraction: float, seed: int) -> NDArray[np.int64]:
    """Returns a random part of the rows, at least one, in ascending order."""
    chosen = np.random.default_rng([seed, 31]).choice(count, max(1, int(fraction * count)), replace=False)
    return np.sort(chosen)
