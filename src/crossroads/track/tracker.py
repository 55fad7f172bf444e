"""Defines the interface of an experiment tracker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

Value = str | int | float | bool
"""The value of a parameter."""

Outcome = Literal["finished", "failed", "stopped"]
"""How a run or a candidate ends. ``stopped`` is Ctrl-C."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a finished run logs.

    Attributes:
        parameters: The fields of the recipe that was used, by name.
        figures: Accuracies, the bounds of their intervals, seconds and memory, by name.
        tags: Facts that are not numbers, such as the digest of the data.
        files: Documents in the artifact that a tracker may store, such as a report.
    """

    parameters: Mapping[str, Value] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[Path] = ()


class Tracker(Protocol):
    """Writes one run to a tracking system. Every method may raise; the caller then stops using the tracker."""

    def begin(self, parameters: Mapping[str, Value]) -> None:
        """Begins the run, or continues it if an earlier process began it.

        Args:
            parameters: The fields of the recipe that the user set.
        """
        ...

    def begin_candidate(self, name: str, parameters: Mapping[str, Value]) -> None:
        """Begins one training of a race, or continues it. The next epochs belong to it.

        Args:
            name: Its name, which is unique within the run and the same in a resumed run.
            parameters: Strategy, backbone and epochs.
        """
        ...

    def epoch(self, figures: Mapping[str, float], step: int) -> None:
        """Logs the figures of an epoch of the current candidate; of the run itself if there is none."""
        ...

    def end_candidate(self, outcome: Outcome) -> None:
        """Ends the current candidate."""
        ...

    def finish(self, result: Result) -> None:
        """Logs the result of the run."""
        ...

    def close(self, outcome: Outcome) -> None:
        """Ends the run and releases files and connections. A resumed run may continue a run that failed or was stopped."""
        ...
