"""Defines the records of the measurements and of the advice."""

from __future__ import annotations

from dataclasses import dataclass

from crossroads.advice.baselines import Baselines
from crossroads.advice.candidates import Candidate
from crossroads.advice.cases import Case
from crossroads.advice.estimate import DIGITS
from crossroads.advice.profile import Profile
from crossroads.advice.short_training import ShortTraining
from crossroads.advice.size import Curve, Size
from crossroads.data.loading import Refusal
from crossroads.display import Shown
from crossroads.plain import to_plain


@dataclass(frozen=True, slots=True)
class Evidence:
    """Measurements on the training images.

    Attributes:
        size: The number of images.
        profiles: The depth profile of each backbone, the best backbone first.
        curve: The learning curve of the best frozen features; None without a pretrained backbone.
        baselines: Accuracies that a strategy has to beat.
        warm_start: A short warm start of the best backbone; None if there was none.
        seconds: Time of the measurements.
    """

    size: Size
    profiles: tuple[Profile, ...]
    curve: Curve | None
    baselines: Baselines
    warm_start: ShortTraining | None
    seconds: float

    @property
    def leading_profile(self) -> Profile | None:
        """The profile of the best pretrained backbone, which determines the case. None if there is no such backbone."""
        return next((profile for profile in self.profiles if profile.similarity is not None), None)


@dataclass(frozen=True, slots=True)
class Advice(Shown):
    """The recommended strategies and the reasons for them.

    Attributes:
        case: One of the four cases; None without a pretrained backbone.
        ranked: All candidates, the best first.
        reasons: One sentence for each conclusion from the evidence, with a code and figures.
        evidence: The measurements.
        budget: The budget in seconds; None if there is none.
        notes: Notes for the user.
        warnings: The notes that need attention, including warnings from reading the data.
        refused: The images of the sample that could not be read, with the reasons.
    """

    case: Case | None
    ranked: tuple[Candidate, ...]
    reasons: tuple[str, ...]
    evidence: Evidence
    budget: float | None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    refused: tuple[Refusal, ...] = ()

    def __repr__(self) -> str:
        """Returns the recommendation, its expected accuracy and the case."""
        case = "" if self.case is None else f", case {self.case.number} ({self.case.title})"
        return f"Advice({self.best.name}: accuracy {self.best.accuracy} expected{case})"

    @property
    def best(self) -> Candidate:
        """The recommended candidate."""
        return self.ranked[0]

    def to_json(self) -> dict[str, object]:
        """Returns plain values, as ``crossroads advise --json`` prints them."""
        return to_plain(self, DIGITS)
