"""The four main cases of the notes: size and similarity as coordinates, and which quarter of the plane the images lie in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from crossroads.advice.estimate import Estimate
from crossroads.advice.profile import SATURATED, Profile
from crossroads.errors import TrainingError

LARGE = 100.0
"""Effective images of a class from which on a set counts as large: where training the whole network begins to beat its frozen
features on similar images (CIFAR-10 on validation: by 4.5 points with 100 of a class; ants and bees with 98: by none)."""

SIMILAR = 0.55
"""Similarity from which on images count as similar: halfway between the set that is known to be different (GTSRB, 0.38 with 4,300
images) and those that are known to be alike (CIFAR-10, 0.74 to 0.77; ants and bees, 0.83). Ten images of a class leave it open."""

DECADES = 4
"""Decades of images of a class over which the axis of size goes: 1 at its beginning, 10,000 at its end."""

TITLES = {
    1: "small and similar: feature extraction",
    2: "small and different: early features",
    3: "large and similar: finetuning",
    4: "large and different: training from scratch, or a warm start",
}


@dataclass(frozen=True, slots=True)
class Case:
    """Where the images lie in the plane of the notes.

    Attributes:
        number: 1 to 4.
        size: In [0, 1]: log10 of the effective images of a class, over `DECADES`.
        similarity: In [0, 1].
        doubt: Why the similarity may be otherwise; "" where there is no reason to doubt it.
    """

    number: int
    size: float
    similarity: Estimate
    doubt: str

    @property
    def title(self) -> str:
        """The case in words, with what the notes would do."""
        return TITLES[self.number]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "number": self.number,
            "title": self.title,
            "size": round(self.size, 4),
            "similarity": self.similarity.to_json(),
            "doubt": self.doubt or None,
        }


def case_of(images_per_class: float, profile: Profile) -> Case:
    """The case of images of which there are so many effective ones a class, by the profile of a pretrained network."""
    if profile.similarity is None:
        raise TrainingError(
            "a case needs a pretrained network and its random control", code="no-random-control", received=profile.backbone
        )
    similarity = profile.similarity.value
    large, similar = images_per_class >= LARGE, similarity.value >= SIMILAR
    number = {(False, True): 1, (False, False): 2, (True, True): 3, (True, False): 4}[large, similar]
    size = min(1.0, max(0.0, math.log10(max(images_per_class, 1.0)) / DECADES))
    doubt = ""
    if profile.random >= SATURATED:
        doubt = "random weights tell the classes nearly as well, which leaves a profile little to show"
    elif similarity.low < SIMILAR <= similarity.high:
        doubt = "the interval leaves it open"
    return Case(number, size, similarity, doubt)
