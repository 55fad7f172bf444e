"""Keeps track of what goes on in a call, from the reports that its watcher receives. `crossroads.report.live` draws it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from crossroads.progress import EpochRecord, Note, Step, Uncounted

CROSS_VALIDATING = "cross-validating"
"""The state of a candidate that has run and is trained again without each fold."""

Key = tuple[str, str]
"""Strategy and backbone of a candidate."""


@dataclass(slots=True)
class Going:
    """A stage that goes on.

    Attributes:
        name: Its name.
        counted: Whether its parts are counted.
        done: Parts that are done.
        total: Number of parts; 0 if unknown.
        began: When it began, on the clock of `time.monotonic`.
    """

    name: str
    counted: bool
    done: int
    total: int
    began: float


@dataclass(slots=True)
class Epochs:
    """The epochs of the phase that goes on.

    Attributes:
        number: The current epoch, counted from 1.
        total: Number of epochs; 0 if unknown.
        done: Batches of the current epoch that are done.
        batches: Batches of an epoch.
        began: When the first one began.
        best: Highest validation accuracy; None before the first epoch ends.
    """

    number: int
    total: int
    done: int
    batches: int
    began: float
    best: float | None = None

    @property
    def fraction(self) -> float:
        """The finished part of all epochs; 0 if their number is unknown."""
        within = self.done / self.batches if self.batches else 0.0
        return min(1.0, (self.number - 1 + within) / self.total) if self.total else 0.0


@dataclass(slots=True)
class Racer:
    """One candidate of a race.

    Attributes:
        name: Its strategy, with the backbone if another candidate has the same strategy.
        state: ``waiting``, ``running``, ``done``, ``best so far``, ``cross-validating``, ``out of time``,
            ``failed`` or ``not tried``.
        expected: The accuracy that the evidence promises; None if unknown.
        best: Its highest accuracy so far; None before it has one.
        epochs: Epochs that it has had; 0 for a solved head.
        usual: Epochs of the present run; None for a solved head.
        seconds: Time of its finished runs.
        began: When its present run began; None if it does not run.
    """

    name: str
    state: str = "waiting"
    expected: float | None = None
    best: float | None = None
    epochs: int = 0
    usual: int | None = None
    seconds: float = 0.0
    began: float | None = None

    def taken(self, now: float) -> float:
        """Returns the seconds of all its runs until now."""
        return self.seconds + (0.0 if self.began is None else now - self.began)

    def stop(self) -> None:
        """Ends its present run."""
        self.seconds, self.began = self.taken(time.monotonic()), None


@dataclass(slots=True)
class Activity:
    """What goes on in a call.

    Attributes:
        began: When the call began.
        going: The stages that go on, the outermost first.
        step: The step that goes on; None if the call has no steps.
        epochs: The epochs of the phase that goes on; None if nothing is trained.
        racers: The candidates of the race, in their order; empty without a race.
        budget: Seconds that the whole call may take; None if unknown.
    """

    began: float = field(default_factory=time.monotonic)
    going: list[Going] = field(default_factory=list)
    step: Step | None = None
    epochs: Epochs | None = None
    racers: dict[Key, Racer] = field(default_factory=dict)
    budget: float | None = None
    _racing: Key | None = None
    _run: str | None = None
    _race_began: bool = False
    _folding: Racer | None = None
    _state_before_folds: str = ""

    @property
    def in_race(self) -> bool:
        """Whether a candidate of a race is running or is cross-validated."""
        return self._race_began and (self._racing is not None or self._folding is not None)

    @property
    def raced(self) -> Racer | None:
        """The candidate that is running; None if there is none."""
        return None if self._racing is None else self.racers.get(self._racing)

    def begin(self, stage: str, done: int, total: int) -> None:
        """Receives the begin of a stage, or a part of it."""
        counted = not isinstance(stage, Uncounted)
        known = next((each for each in self.going if each.name == stage), None)
        if known is not None:
            known.done, known.total = done, total
            return
        if counted:
            self._interrupt()
        elif self._racing is not None and self._run is None:
            self._run = stage
        if isinstance(stage, Step) and self.step is None:
            self.step = stage
        self.going.append(Going(stage, counted, done, total, time.monotonic()))

    def end(self, stage: str) -> Going | None:
        """Receives the end of a stage and returns it. What began inside an uncounted stage has ended with it."""
        index = next((index for index, each in enumerate(self.going) if each.name == stage), None)
        if index is None:
            return None
        ended = self.going[index]
        self.going[index:] = [] if not ended.counted else self.going[index + 1 :]
        if not ended.counted:
            self.epochs = None
        if self.step is not None and self.step == stage:
            self.step = None
        if self._run == stage:
            self._end_run()
        return ended

    def batch(self, epoch: int, done: int, total: int) -> None:
        """Receives the number of batches of an epoch that are done."""
        self._interrupt()
        if self.epochs is None or epoch < self.epochs.number:
            racer = self.raced
            self.epochs = Epochs(epoch, 0 if racer is None else racer.usual or 0, done, total, time.monotonic())
        self.epochs.number, self.epochs.done, self.epochs.batches = epoch, done, total

    def epoch(self, record: EpochRecord, total: int) -> None:
        """Receives the end of an epoch."""
        now = time.monotonic()
        if self.epochs is None:
            self.epochs = Epochs(record.epoch, total, 1, 1, now - record.seconds)
        epochs = self.epochs
        epochs.number, epochs.total, epochs.done = record.epoch, total, epochs.batches
        epochs.best = max(epochs.best or 0.0, record.validation_accuracy)
        racer = self.raced
        if racer is not None:
            racer.best = max(racer.best or 0.0, record.validation_accuracy)
            racer.epochs = record.epoch if racer.usual else 0

    def note(self, note: str) -> None:
        """Receives a note. Those on a race tell which candidates there are, and what became of them."""
        handle = _HANDLERS.get(getattr(note, "code", ""))
        if handle is not None and isinstance(note, Note):
            handle(self, note.figures)

    def start_race(self, figures: dict[str, Any]) -> None:
        """Lists the candidates. Those that have run already keep their results."""
        self._race_began, self.budget = True, figures.get("budget")
        known, self.racers = self.racers, {}
        for name, expected in figures["expected"].items():
            strategy, _, backbone = name.partition(" with ")
            racer = known.get((strategy, backbone)) or Racer(strategy)
            racer.expected = expected
            self.racers[strategy, backbone] = racer
        for strategy, backbone in self.racers:
            if sum(other == strategy for other, _ in self.racers) > 1:
                self.racers[strategy, backbone].name = f"{strategy}, {backbone}"

    def start_run(self, figures: dict[str, Any]) -> None:
        """Marks a candidate as running."""
        racer = self._racer(figures)
        racer.state, racer.began, racer.usual = "running", time.monotonic(), figures["epochs"]
        self._racing, self._run = _key(figures), None

    def save(self, figures: dict[str, Any]) -> None:
        """Marks a candidate as the best so far."""
        for other in self.racers.values():
            other.state = "done" if other.state == "best so far" else other.state
        racer = self._racer(figures)
        racer.best = max(racer.best or 0.0, figures["accuracy"])
        racer.state = "best so far"
        if racer.began is None:
            racer.seconds = figures["seconds"]

    def skip(self, figures: dict[str, Any]) -> None:
        """Marks candidates that do not run."""
        for each in figures["candidates"]:
            racer = self._racer(each)
            if racer.state == "waiting":
                racer.state = "not tried"

    def fail(self, figures: dict[str, Any]) -> None:
        """Marks a candidate that failed."""
        self._racer(figures).state = "failed"

    def start_folds(self, figures: dict[str, Any]) -> None:
        """Marks a candidate that is trained again without each fold. Its best result stays the one on the validation images."""
        racer = self._folding = self._racer(figures)
        self._state_before_folds, racer.state, racer.began = racer.state, CROSS_VALIDATING, time.monotonic()

    def end_folds(self, _: dict[str, Any]) -> None:
        """Ends the cross-validation of a candidate, if it began."""
        if self._folding is not None:
            self._folding.stop()
            self._folding.state, self._folding = self._state_before_folds, None

    def run_out(self, figures: dict[str, Any]) -> None:
        """Marks a candidate whose time ended."""
        self._racer(figures).state = "out of time"

    def _racer(self, figures: dict[str, Any]) -> Racer:
        return self.racers.setdefault(_key(figures), Racer(str(figures["strategy"])))

    def _end_run(self) -> None:
        racer = self.raced
        if racer is not None:
            racer.stop()
            racer.state = "done" if racer.state == "running" else racer.state
        self._racing = self._run = None

    def _interrupt(self) -> None:
        """Ends counted stages without an end: an exception has interrupted them."""
        self.going[:] = [each for each in self.going if not each.counted]


def _key(figures: dict[str, Any]) -> Key:
    return str(figures["strategy"]), str(figures["backbone"])


_HANDLERS = {
    "race-started": Activity.start_race,
    "run-started": Activity.start_run,
    "artifact-saved": Activity.save,
    "candidates-skipped": Activity.skip,
    "folds-started": Activity.start_folds,
    "folds-compared": Activity.end_folds,
    "not-cross-validated": Activity.end_folds,
    "run-failed": Activity.fail,
    "run-out-of-time": Activity.run_out,
}
"""What each note on a race changes, by the code of the note."""
