"""What a race goes by and what it has done, as records and as files in the folder of the run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from crossroads.advice.estimate import Estimate
from crossroads.errors import RecipeError, TrainingError
from crossroads.recipe import Recipe
from crossroads.training.checkpoint import differing_parts, write_atomically

FORMAT = 3
"""Of the files of a race; what another version of the program wrote is not taken up."""

OUT_OF_TIME = "the budget was spent before it had an answer"


@dataclass(frozen=True, slots=True)
class RaceCandidate:
    """A candidate as it enters.

    Attributes:
        recipe: Resolved.
        accuracy: Expected.
        seconds: Expected of the whole run; 0 where nothing is known.
        epoch_seconds: Expected of one epoch of it; 0 for a head that is solved, or where nothing is known.
        shortens: Whether fewer epochs than the recipe's are an answer too; not where the user named their number.
    """

    recipe: Recipe
    accuracy: Estimate
    seconds: float
    epoch_seconds: float = 0.0
    shortens: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """What a race goes by; kept in its folder, so that it is the same when the race is taken up.

    Attributes:
        candidates: In the order of the advice, without those that cannot be taken.
        budget: Seconds.
        spent: Seconds that the advice took.
        advice: What was measured and advised, as plain JSON values.
    """

    candidates: tuple[RaceCandidate, ...]
    budget: float
    spent: float
    advice: dict[str, Any]

    def at(self, data: str | None, test: str | None) -> Plan:
        """The plan with its recipes' paths set to where the same images lie now."""
        candidates = (replace(one, recipe=replace(one.recipe, data=data, test=test)) for one in self.candidates)
        return replace(self, candidates=tuple(candidates))


@dataclass(frozen=True, slots=True)
class CandidateRun:
    """One run of a candidate, for some of its epochs or all.

    Attributes:
        name: Of its folder.
        candidate: Place of the candidate in the plan.
        planned: Epochs that its schedule has; None for a solved head.
        epochs: The same, or fewer where its time was over before; None for a solved head, 0 where it failed.
        whole: Whether this was all that the candidate plans.
        seconds: Taken.
        epoch_seconds: Of these, an epoch's.
        validation_accuracy: Reached; None where it failed.
        validation_loss: In nats, likewise.
        images: Validation images; where they come in groups, what these are worth.
        failed: Why there is nothing to show for it; "" where there is.
        improved: Whether training did better than the head that it began with, whose weights are kept otherwise.
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

    @property
    def accuracy(self) -> float:
        """Reached; 0 where it failed."""
        return self.validation_accuracy or 0.0


@dataclass(slots=True)
class Done:
    """What a race did, and what it is at; it grows while the race is run.

    Attributes:
        trials: Those that are over, by their names.
        begun: The epochs of each trial that was begun: it is taken up with these, whatever would be decided now.
    """

    trials: dict[str, CandidateRun]
    begun: dict[str, int | None]


def stored_done(path: Path) -> Done:
    """What a race did before it was broken off. Raises `TrainingError` where the file is damaged."""
    value = _read(path)
    if value is None:
        return Done({}, {})
    try:
        trials = [CandidateRun(**row) for row in value["runs"]]
        return Done({trial.name: trial for trial in trials}, dict(value["begun"]))
    except (TypeError, ValueError, KeyError) as error:
        raise _damaged(path) from error


def keep_done(done: Done, path: Path) -> None:
    """Write what a race did for `stored_done`. Raises `TrainingError` where it cannot be written."""
    _write(path, {"runs": [asdict(trial) for trial in done.trials.values()], "begun": done.begun})


def stored_plan(path: Path, identity: str) -> Plan | None:
    """The plan of a race that was begun; None where there is none.

    Args:
        path: Where it is kept.
        identity: Of the data and the program; a plan of another is refused.

    Raises:
        TrainingError: It is damaged, or was made for other images or by another version.
    """
    value = _read(path)
    if value is None:
        return None
    if (value.get("identity"), value.get("format")) != (identity, FORMAT):
        other = differing_parts(str(value.get("identity")), identity) if value.get("format") == FORMAT else "versions"
        raise TrainingError(
            f"the unfinished race belongs to another run: {other} differ",
            received=str(path.parent.parent),
            hint="use the data and the version it was started with, or another --out",
        )
    try:
        candidates = tuple(
            RaceCandidate(**row | {"recipe": Recipe.from_mapping(row["recipe"], str(path)), "accuracy": Estimate(*row["accuracy"])})
            for row in value["candidates"]
        )
        return Plan(candidates, value["budget"], value["spent"], value["advice"])
    except (ValueError, TypeError, KeyError, RecipeError) as error:
        raise _damaged(path) from error


def keep_plan(plan: Plan, path: Path, identity: str) -> None:
    """Write a plan for `stored_plan`. Raises `TrainingError` where it cannot be written."""
    candidates = [
        {field.name: getattr(one, field.name) for field in fields(one)} | {"recipe": one.recipe.to_mapping()}
        for one in plan.candidates
    ]
    known = {"budget": plan.budget, "spent": plan.spent, "advice": plan.advice}
    _write(path, {"format": FORMAT, "identity": identity, "candidates": candidates, **known})


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON object that `_write` wrote; None where there is no file. Raises `TrainingError`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _damaged(path) from error
    if not isinstance(value, dict):
        raise _damaged(path)
    return value


def _write(path: Path, value: dict[str, Any]) -> None:
    try:
        write_atomically(path, json.dumps(value, indent=1).encode())
    except OSError as error:
        raise TrainingError(
            "--out must be writable", received=f"{path} ({error.strerror})", hint="make room there and add --resume"
        ) from error


def _damaged(path: Path) -> TrainingError:
    return TrainingError("the unfinished run is damaged", received=str(path), hint="start again in another folder")
