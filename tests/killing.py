"""Breaking a run off at a chosen step."""

from __future__ import annotations

from crossroads.progress import Silent


class Killed(Exception):
    """Not a mistake of the user's: it passes through everything, as a kill would."""


class StopAt(Silent):
    """Breaks off in the middle of an epoch."""

    def __init__(self, epoch: int, step: int) -> None:
        self.at = (epoch, step)

    def step(self, epoch: int, done: int, total: int) -> None:
        if (epoch, done) == self.at:
            raise Killed
