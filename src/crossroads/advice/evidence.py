"""What was measured and what is advised, as records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from crossroads.advice.baselines import Baselines
from crossroads.advice.candidates import Candidate
from crossroads.advice.cases import Case
from crossroads.advice.profile import Profile
from crossroads.advice.short_training import ShortTraining
from crossroads.advice.size import Curve, Size
from crossroads.data.loading import Refusal


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was measured, on training images alone.

    Attributes:
        size: How many images there are.
        profiles: What each backbone sees, the best one first.
        curve: The learning curve of the best frozen features; None where no backbone was looked at.
        baselines: What must be beaten.
        warm_start: A short warm start of the best backbone; None where none was made.
        seconds: That measuring took.
    """

    size: Size
    profiles: tuple[Profile, ...]
    curve: Curve | None
    baselines: Baselines
    warm_start: ShortTraining | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "size": self.size.to_json(),
            "profiles": [profile.to_json() for profile in self.profiles],
            "curve": None if self.curve is None else self.curve.to_json(),
            "baselines": self.baselines.to_json(),
            "warm_start": None if self.warm_start is None else self.warm_start.to_json(),
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do with a set of images, and why.

    Attributes:
        case: Of the notes' four; None where no pretrained network was looked at.
        ranked: Everything that could be done, the best first.
        reasons: In plain words.
        evidence: What they rest on.
        budget: Seconds that were allowed; None for any.
        notes: Notes for the user.
        warnings: Of these, what the user should act on; also what the reading of the data brought.
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

    @property
    def best(self) -> Candidate:
        """What to do."""
        return self.ranked[0]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "case": None if self.case is None else self.case.to_json(),
            "ranked": [candidate.to_json() for candidate in self.ranked],
            "reasons": list(self.reasons),
            "evidence": self.evidence.to_json(),
            "budget": self.budget,
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            "refused": [refusal.to_json() for refusal in self.refused],
        }
