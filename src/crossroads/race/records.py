"""Defines the plan and the state of a race, as records and as files in the folder of the run."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from crossroads.advice.estimate import Estimate
from crossroads.errors import RecipeError, TrainingError, not_writable, option
from crossroads.plain import from_plain, to_plain
from crossroads.recipe import Recipe
from crossroads.training.checkpoint import differing_parts, write_atomically

FORMAT = 6
"""Version of the files of a race. Files of another version are refused."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RaceCandidate:
    """The facts about a candidate before its first run.

    Attributes:
        recipe: The resolved recipe.
        accuracy: Expected accuracy with all epochs.
        seconds: Expected seconds of the whole run; 0 if unknown.
        epoch_seconds: Expected seconds of one epoch; 0 for a solved head, or if unknown.
        shortens: Whether fewer epochs than the recipe's are an answer too. They are not if the user named their number.
        estimated: Whether the accuracy is estimated from measurements. If not, it is a wide prior, which is never shown.
    """

    recipe: Recipe
    accuracy: Estimate
    seconds: float
    epoch_seconds: float = 0.0
    shortens: bool = True
    estimated: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """The candidates of a race. It is stored, so that a resumed race has the same plan.

    Attributes:
        candidates: The candidates, in the order of the advice.
        budget: Budget in seconds.
        spent: Seconds that the advice took.
        advice: The advice as plain JSON values.
        fraction: Fraction of the images that are used, because the budget is too short for all.
    """

    candidates: tuple[RaceCandidate, ...]
    budget: float
    spent: float
    advice: dict[str, object]
    fraction: float = 1.0

    def at(self, data: str | None, test: str | None) -> Plan:
        """Returns the plan with other paths in its recipes, in case the images were moved."""
        moved = (replace(candidate, recipe=replace(candidate.recipe, data=data, test=test)) for candidate in self.candidates)
        return replace(self, candidates=tuple(moved))


@dataclass(frozen=True, slots=True)
class CandidateRun:
    """The result of one run of a candidate.

    Attributes:
        name: Name of its folder.
        candidate: Index of the candidate in the plan.
        planned: Epochs of its schedule; None for a solved head.
        epochs: Epochs that it had, fewer than planned if its time was over; None for a solved head, 0 if it failed.
        whole: Whether it had all epochs of the candidate's recipe.
        seconds: Seconds that it took.
        epoch_seconds: Median number of seconds per epoch.
        validation_accuracy: Accuracy on the validation images; None if it failed.
        validation_loss: Mean cross-entropy in nats on the validation images; None if it failed.
        images: Number of validation images; the effective number if they are grouped.
        failed: Why it failed; "" if it did not.
        improved: Whether training beat the head that it started with. If not, the weights of that head were kept.
        out_of_time: Whether it failed because its time was over before its first epoch.
        correct: For each validation image "1" if weights that were not fitted to it classify it correctly, otherwise "0"; "" if
            there are so many that candidates are not compared image by image.
        crossed: The same for each training and then each validation image, by weights that were fitted without its fold. It has
            "-" for an image that was never left out, and is "" without a cross-validation.
    """

    name: str
    candidate: int
    planned: int | None
    epochs: int | None
    whole: bool
    seconds: float
    epoch_seconds: float = 0.0
    validation_accuracy: float | None = None
    validation_loss: float | None = None
    images: float = 0.0
    failed: str = ""
    improved: bool = True
    out_of_time: bool = False
    correct: str = ""
    crossed: str = ""

    @property
    def accuracy(self) -> float:
        """The validation accuracy; 0 if the run failed."""
        return self.validation_accuracy or 0.0


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run of a race, as a finished run reports it.

    Attributes:
        strategy: The strategy of the candidate.
        backbone: Its backbone.
        epochs: Epochs that the run had; None for a solved head.
        usual_epochs: Epochs of the candidate's recipe; None for a solved head.
        whole: Whether the run had all of them.
        seconds: Seconds that it took.
        expected: Accuracy that the advice expects with the epochs of the run; None without advice.
        validation_accuracy: Accuracy on the validation images; None if the run failed.
        validation_loss: Mean cross-entropy in nats on the validation images; None if the run failed.
        posterior: The expected accuracy combined with that on validation; None if the run failed, or without advice.
        failed: Why it failed; None if it did not.
        won: Whether its model was kept.
        images: Images that the validation accuracy was measured on; their effective number if they are grouped.
        improved: Whether training beat the head that it began with. If not, the accuracy is that of this head, which was kept.
    """

    strategy: str
    backbone: str
    epochs: int | None
    usual_epochs: int | None
    whole: bool
    seconds: float
    expected: Estimate | None
    validation_accuracy: float | None
    validation_loss: float | None
    posterior: float | None
    failed: str | None
    won: bool
    images: float = 0.0
    improved: bool = True


@dataclass(frozen=True, slots=True)
class RaceReport:
    """A finished race: the entry ``race`` of ``metrics.json``.

    Attributes:
        budget: Budget in seconds.
        seconds: Time of the advice and of all runs.
        stopped: Whether Ctrl-C ended the race.
        runs: The runs, in the order in which they ran.
        why: The reason why the winner won.
    """

    budget: float
    seconds: float
    stopped: bool
    runs: tuple[RunRow, ...]
    why: str


@dataclass(slots=True)
class RaceState:
    """The progress of a race. It grows while the race runs.

    Attributes:
        runs: The runs that have ended, by name.
        begun: Epochs of each run that has started. A resumed run keeps this number, even if the race would now decide otherwise.
    """

    runs: dict[str, CandidateRun]
    begun: dict[str, int | None]


def stored_state(path: Path) -> RaceState:
    """Reads what an interrupted race has done. Raises `TrainingError` if the file is damaged."""
    value = _read(path)
    return RaceState({}, {}) if value is None else _typed(RaceState, value, path)


def keep_state(state: RaceState, path: Path) -> None:
    """Writes the state for `stored_state`. Raises `TrainingError` if it cannot be written."""
    _write(path, to_plain(state))


def stored_plan(path: Path, identity: str) -> Plan | None:
    """Reads the plan of an interrupted race; None if there is no file.

    Args:
        path: Path of the file.
        identity: Identity of the data and the program. A plan with another identity is refused.

    Raises:
        TrainingError: The plan is damaged, or was made for other images or by another version.
    """
    value = _read(path)
    if value is None:
        return None
    if (value.get("identity"), value.get("format")) != (identity, FORMAT):
        other = differing_parts(str(value.get("identity")), identity) if value.get("format") == FORMAT else "versions"
        raise TrainingError(
            "the unfinished race must be resumed with the same images by the same version",
            code="resumed-run-differs",
            field="out",
            received=f"{path.parent.parent} with other {other}",
            hint=f"use the data and the version that it was started with, or choose another {option('out')}",
        )
    return _typed(Plan, value.get("plan"), path)


def keep_plan(plan: Plan, path: Path, identity: str) -> None:
    """Writes a plan for `stored_plan`. Raises `TrainingError` if it cannot be written."""
    _write(path, {"format": FORMAT, "identity": identity, "plan": to_plain(plan)})


def _typed(kind: type[T], value: object, path: Path) -> T:
    try:
        return from_plain(kind, value)
    except (ValueError, RecipeError) as error:
        raise _damaged(path) from error


def _read(path: Path) -> dict[str, object] | None:
    """Reads a JSON object; None if there is no file. Raises `TrainingError`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _damaged(path) from error
    if not isinstance(value, dict):
        raise _damaged(path)
    return value


def _write(path: Path, value: dict[str, object]) -> None:
    try:
        write_atomically(path, json.dumps(value, indent=1).encode())
    except OSError as error:
        raise not_writable(path, error, hint=f"free some space and add {option('resume')}") from error


def _damaged(path: Path) -> TrainingError:
    return TrainingError(
        "the unfinished run is damaged", code="damaged-run", field="out", received=str(path), hint="start again in another folder"
    )
