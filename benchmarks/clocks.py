"""When each epoch of a training ended, with its validation and its checkpoint. Loads Keras."""

from __future__ import annotations

import time
from typing import Any

import keras

from crossroads.progress import Silent


class Clock(Silent):
    """Of our loop."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def epoch(self, record: object, total: int) -> None:
        self.ends.append(time.perf_counter())


class KerasClock(keras.callbacks.Callback):
    """Of `keras.Model.fit`."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.ends.append(time.perf_counter())
