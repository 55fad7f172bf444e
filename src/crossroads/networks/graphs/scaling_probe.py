"""Compares the chosen scaling of the pixels with others, since a wrong one costs accuracy and raises no error."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from crossroads.inference import evaluate
from crossroads.networks.body import Body, Frozen
from crossroads.networks.graphs.preprocessing import PREPROCESSED, scaled
from crossroads.networks.scaling import SCALINGS
from crossroads.progress import Note

COMPARED = ("none", "centre", "tf", "torch", "caffe")
"""Scalings that differ clearly. Each of the others is like one of them: lite like tf, clip like torch, bvlc like caffe."""

SIGNIFICANCE = 0.01
"""Probability of a note by mistake if no other scaling is better, over all scalings together."""

_BATCH = 32

Losses = Callable[[NDArray[np.float32], NDArray[np.integer]], NDArray[np.float64]]
"""Returns the cross-entropy (n,) of each row of features (n, d) with labels (n,) while it is left out."""


def probe_scalings(body: Body, images: NDArray[np.uint8], labels: NDArray[np.integer], losses: Losses) -> Note | None:
    """Compares the scaling of a graph with others on training images. Returns a note if another is clearly better.

    The losses of each image with two scalings are compared by Wilcoxon's signed-rank test, one-sided, with Bonferroni's correction.
    We measured SqueezeNet on 20 samples of ants and bees. The wrong scalings torch, clip, tf, none and centre are detected in 18 to
    20 of the samples with 200 images each, and in 6 to 16 of the samples with 100 images each. The right one, caffe, never gets a
    note. The number of errors would be less sensitive: McNemar's test on 243 images detects none of the wrong scalings.

    Args:
        body: The graph as a backbone.
        images: uint8 (n, size, size, 3), preferably 200 or more.
        labels: Integers (n,).
        losses: Cross-validates a linear classifier, such as ``lambda x, y: probe(x, y).losses``.

    Returns:
        The note; None if no scaling is clearly better, or if the graph takes pixels as they are.
    """
    from scipy.stats import wilcoxon  # type: ignore[import-untyped]

    part = body.until(body.end, "average")
    if not _has_scaling(part):
        return None
    chosen = losses(_features(part, None, images), labels)
    others = {name: losses(_features(part, name, images), labels) for name in COMPARED}
    best = min(others, key=lambda name: float(others[name].mean()))
    gain = chosen - others[best]
    if gain.mean() <= 0:
        return None
    p_value = float(wilcoxon(gain, alternative="greater").pvalue)
    if p_value * len(COMPARED) > SIGNIFICANCE:
        return None
    better, now = float(others[best].mean()), float(chosen.mean())
    return Note(
        f"the preprocessing of {body.name} looks wrong: on {len(labels)} training images a linear classifier has a loss of "
        f"{better:.2f} with {best!r} and of {now:.2f} with the chosen one",
        "another-scaling-is-better",
        preprocessing=best,
        loss=better,
        loss_with_chosen=now,
        images=len(labels),
        p_value=p_value,
    )


def _has_scaling(part: Frozen) -> bool:
    return any(node.get_friendly_name() == PREPROCESSED for node in part.model.get_ops())


def _features(part: Frozen, scaling: str | None, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns the features of images with a scaling; None for that of the graph."""
    model = part.model.clone()
    if scaling is not None:
        old = next(node for node in model.get_ops() if node.get_friendly_name() == PREPROCESSED)
        old.output(0).replace(scaled(model.get_parameters()[0].output(0), SCALINGS[scaling]))
    return evaluate(model, images, part.batch or _BATCH)[0].reshape(len(images), -1)
