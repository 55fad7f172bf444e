"""Which classes change when mirrored, and which become each other."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from crossroads.data.mirrors import MirrorClasses, find_mirrors, reasons_against_flip


def shapes(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Images uint8 (n, 24, 24, 3) of noisy shapes: arrows left and right, a bar upright, a flag whose mirror image is no class."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:24, :24]
    labels = rng.integers(0, 4, n)
    images = np.empty((n, 24, 24, 3), np.uint8)
    for i, label in enumerate(labels):
        dx, dy = rng.integers(-2, 3, 2)
        head = (np.abs(y - 12 - dy) <= (x - 4) * 0.6) & (x < 20)
        shape = [head, head[:, ::-1], np.abs(x - 12) < 3, (np.abs(x - 6) < 2) | ((x > 6) & (y < 9))][label]
        grey = rng.integers(20, 80) + np.roll(shape, dx, 1) * rng.integers(60, 150) + rng.integers(0, 20, (24, 24))
        images[i] = grey.astype(np.uint8)[..., None]
    return images, labels, ("left", "right", "bar", "flag")


def test_pairs_asymmetric_and_symmetric_classes() -> None:
    images, labels, classes = shapes(400)
    assert reasons_against_flip(images, labels, classes) == [
        "'left' and 'right' are mirror images of each other",
        "3 of 4 classes look different when mirrored: 'left', 'right', 'flag'",
    ]


def test_a_reasons_against_flip_if_images_occur_in_both_directions() -> None:
    images, labels, classes = shapes(400)
    turned = np.random.default_rng(3).random(400) < 0.5
    images[turned] = images[turned][:, :, ::-1]
    keep = labels >= 2
    assert reasons_against_flip(images[keep], labels[keep] - 2, classes[2:]) == []


def test_digits_must_not_be_flipped() -> None:
    digits = load_digits()
    pixels = np.repeat((digits.images * 15.9).astype(np.uint8)[..., None], 3, 3)
    assert "classes look different when mirrored" in reasons_against_flip(pixels, digits.target, [str(i) for i in range(10)])[0]


def test_classes_with_few_images_or_groups_are_not_judged() -> None:
    images, labels, classes = shapes(12)
    thumbs = images[:, 4:20, 4:20, 0]
    assert find_mirrors(thumbs, labels, classes, np.zeros(12, np.int64)) == MirrorClasses()
    assert find_mirrors(thumbs[:0], labels[:0], classes) == MirrorClasses()
    few = find_mirrors(np.repeat(thumbs, 4, 0), np.repeat(labels, 4), (*classes, "never"))
    assert "never" not in (*few.asymmetric, *few.symmetric)


def test_asymmetry_of_a_few_groups_is_not_attributed_to_the_class() -> None:
    # Four groups, each of 30 copies of one random picture: many images, little evidence.
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (8, 16, 16), np.uint8).repeat(30, 0)
    labels, groups = np.repeat([0, 1], 120), np.repeat(np.arange(8), 30)
    assert find_mirrors(pictures, labels, ("a", "b"), groups).asymmetric == ()


def test_the_answer_does_not_change_from_call_to_call() -> None:
    images, labels, classes = shapes(200)
    assert reasons_against_flip(images, labels, classes) == reasons_against_flip(images, labels, classes)
