"""Interrupts a run at a chosen step."""

from __future__ import annotations

from crossroads.progress import Silent


class Killed(Exception):
    """Passes through every handler of errors, as a kill would."""


class StopAt(Silent):
    """A watcher that interrupts the run within an epoch."""

    def __init__(self, epoch: int, step: int) -> None:
        self.at = (epoch, step)

    def step(self, epoch: int, done: int, total: int) -> None:
        if (epoch, done) == self.at:
            raise Killed
