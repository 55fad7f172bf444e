"""Measures the time of a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """The time that a run has spent, and what is left of its budget.

    Attributes:
        started: The value of `now` when this process began to work on the run.
        earlier: Seconds that earlier processes spent on the run.
        budget: The budget in seconds; None for no limit.
        now: Returns the time in seconds.
    """

    started: float
    earlier: float = 0.0
    budget: float | None = None
    now: Callable[[], float] = time.perf_counter

    @property
    def spent(self) -> float:
        """Seconds so far, over all processes."""
        return self.earlier + self.now() - self.started

    @property
    def left(self) -> float:
        """Seconds of the budget that are left; negative once it is exceeded, infinite without a budget."""
        return float("inf") if self.budget is None else self.budget - self.spent
