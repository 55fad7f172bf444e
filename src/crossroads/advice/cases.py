"""Defines the four classic cases of transfer learning, and finds the case of a data set from its size and similarity."""

from __future__ import annotations

import math
from dataclasses import dataclass

from crossroads.advice.estimate import Estimate
from crossroads.advice.profile import SATURATED, Profile
from crossroads.errors import TrainingError
from crossroads.progress import Note

LARGE = 100.0
"""Effective images per class from which a data set counts as large. From about there, training the whole network beats frozen
features on similar images: on CIFAR-10 by 4.5 points of validation accuracy with 100 per class, on ants and bees with 98 not at
all."""

SIMILAR = 0.55
"""Similarity from which images count as similar, halfway between data sets known to be different (GTSRB, 0.38 with 4,300
images) and those known to be similar (CIFAR-10, 0.74 to 0.77; ants and bees, 0.83). Ten images per class are too few to
decide."""

DECADES = 4
"""Decades on the axis of size: from 1 image per class to 10,000."""

TITLES = {
    1: "small and similar: feature extraction",
    2: "small and different: early features",
    3: "large and similar: finetuning",
    4: "large and different: training from scratch, or a warm start",
}


@dataclass(frozen=True, slots=True)
class Case:
    """The position of the images in the plane of size and similarity.

    Attributes:
        number: 1 to 4.
        title: The case in words, with its classic strategy.
        size: log10 of the effective images per class, divided by `DECADES`; in [0, 1].
        similarity: The similarity to the images of the pretraining; in [0, 1].
        doubt: Why the similarity is uncertain; None if it is not.
    """

    number: int
    title: str
    size: float
    similarity: Estimate
    doubt: Note | None


def case_of(images_per_class: float, profile: Profile) -> Case:
    """Finds the case from the effective number of images per class and the depth profile of a pretrained network."""
    if profile.similarity is None:
        raise TrainingError(
            "a case needs a pretrained network and its random control", code="no-random-control", received=profile.backbone
        )
    similarity = profile.similarity.value
    large, similar = images_per_class >= LARGE, similarity.value >= SIMILAR
    number = {(False, True): 1, (False, False): 2, (True, True): 3, (True, False): 4}[large, similar]
    size = min(1.0, max(0.0, math.log10(max(images_per_class, 1.0)) / DECADES))
    doubt = None
    if profile.random >= SATURATED:
        text = "a network with random weights is nearly as accurate, so the depth profile says little"
        doubt = Note(text, "random-control-saturated", accuracy=round(profile.random, 4))
    elif similarity.low < SIMILAR <= similarity.high:
        text = f"the interval of the similarity includes the threshold of {SIMILAR}"
        doubt = Note(text, "similarity-uncertain", low=round(similarity.low, 4), high=round(similarity.high, 4))
    return Case(number, TITLES[number], size, similarity, doubt)
