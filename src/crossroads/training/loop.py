"""One phase of training: the only caller of Keras' `fit`, with checkpoints that a killed run is taken up from bit by bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import optimizers
from numpy.typing import NDArray

from crossroads.errors import TrainingError
from crossroads.networks.network import Network
from crossroads.strategies import Phase
from crossroads.training.augment import Augment
from crossroads.training.batches import TOGETHER, Labelled, batches, steps_of
from crossroads.training.checkpoint import Checkpoints, EpochRecord, Progress
from crossroads.training.watch import Watcher

EVALUATION_BATCH = 256
WARM_UP = 0.2  # Share of a one-cycle schedule in which the learning rate rises.


@dataclass(frozen=True, slots=True)
class Trained:
    """What a phase leaves: the network it was given holds the weights of the best epoch.

    Attributes:
        history: One record an epoch.
        best: The epoch kept, counted from 1: highest validation accuracy, then lowest validation loss, then the later one.
    """

    history: tuple[EpochRecord, ...]
    best: int


def train(
    network: Network, phase: Phase, data: Labelled, validation: Labelled, checkpoints: Checkpoints, identity: str, watcher: Watcher
) -> Trained:
    """Train `network` in place, from the newest checkpoint where there is one.

    Args:
        network: Holds its first weights; holds those of the best epoch after.
        phase: What to do.
        data: Training images.
        validation: Images that choose the best epoch.
        checkpoints: Where the state is kept after each epoch.
        identity: Digest of data, splits, recipe and network; a checkpoint of another identity is refused.
        watcher: Is told of each step and epoch.

    Raises:
        TrainingError: The checkpoint belongs to another run, or the loss is not finite.
    """
    classes = network.logits.output_shape[-1]
    steps = steps_of(len(data), phase.batch_size)
    model = _training_model(network, phase, steps)
    state = [*network.logits.variables, *model.optimizer.variables]
    progress = checkpoints.progress()
    if progress is not None:
        if progress.identity != identity:
            raise TrainingError(
                "the checkpoint belongs to another run: data, recipe or version differ",
                received=str(checkpoints.folder),
                mend="give the options and data it was started with, or another --out",
            )
        _assign(state, checkpoints.arrays(len(progress.history)))
    epochs = _Epochs(network, model, phase, validation, checkpoints, progress or Progress(identity, (), 0), watcher, steps, state)
    done = len(epochs.progress.history)
    if done < phase.epochs and not _stops_early(epochs.progress, phase):
        model.fit(
            batches(data, phase, classes, done),
            steps_per_epoch=steps,
            shuffle=False,  # the batches come in their own order
            initial_epoch=done,
            epochs=phase.epochs,
            callbacks=[epochs],
            verbose=0,
        )
    progress = epochs.progress
    if progress.best != len(progress.history):
        _assign(state, checkpoints.arrays(progress.best))
    return Trained(progress.history, progress.best)


def _training_model(network: Network, phase: Phase, steps: int) -> keras.Model:
    images = keras.Input((network.size, network.size, 3), dtype="uint8", name="images")
    inputs: Any = images
    if phase.augmentation.moves:
        inputs = (images, keras.Input((8,), name="maps"), keras.Input((2,), name="colour"))
        pixels = Augment(name="augment")(inputs)
    else:
        pixels = keras.layers.Rescaling(1.0, name="to_float")(images)
    model = keras.Model(inputs, network.logits(pixels), name="training")
    smooth = phase.label_smoothing
    loss = (
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smooth)
        if smooth
        else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    together = TOGETHER if steps % TOGETHER == 0 else 1
    model.compile(optimizer=_optimizer(phase, steps), loss=loss, jit_compile=_jit(), steps_per_execution=together)
    model.optimizer.build(model.trainable_variables)
    return model


def _jit() -> bool | str:
    # On a CPU TensorFlow trains several times slower with XLA (`python -m benchmarks xla`); JAX cannot do without.
    if keras.backend.backend() != "tensorflow":
        return "auto"
    import tensorflow as tf

    return "auto" if tf.config.list_physical_devices("GPU") else False


def _optimizer(phase: Phase, steps: int) -> optimizers.Optimizer:
    total = phase.epochs * steps
    rate: Any = phase.learning_rate
    if phase.schedule == "cosine":
        rate = optimizers.schedules.CosineDecay(phase.learning_rate, total)
    elif phase.schedule == "one-cycle":
        rising = max(1, round(WARM_UP * total))
        rate = optimizers.schedules.CosineDecay(
            phase.learning_rate / 100, max(1, total - rising), warmup_target=phase.learning_rate, warmup_steps=rising
        )
    if phase.optimizer == "adam":
        return optimizers.Adam(learning_rate=rate)
    optimizer = optimizers.AdamW(learning_rate=rate, weight_decay=phase.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def _assign(variables: list[Any], arrays: list[NDArray[np.generic]]) -> None:
    if len(variables) != len(arrays) or any(tuple(v.shape) != a.shape for v, a in zip(variables, arrays, strict=True)):
        raise TrainingError(
            "the checkpoint does not fit this network", received=f"{len(arrays)} arrays", mend="start again in another folder"
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _stops_early(progress: Progress, phase: Phase) -> bool:
    if not phase.early_stopping or not progress.history:
        return False
    losses = [record.validation_loss for record in progress.history]
    return len(losses) - 1 - int(np.argmin(losses)) >= phase.early_stopping


def validate(logits: keras.Model, data: Labelled) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy of a logits model on labelled images, computed in float64."""
    loss = right = 0.0
    for first in range(0, len(data), EVALUATION_BATCH):
        labels = data.labels[first : first + EVALUATION_BATCH]
        images = np.asarray(data.pixels[first : first + EVALUATION_BATCH], dtype=np.float32)
        scores = np.asarray(logits.predict_on_batch(images), dtype=np.float64)
        peak = scores.max(axis=1, keepdims=True)
        log_sum = peak[:, 0] + np.log(np.exp(scores - peak).sum(axis=1))
        loss += float((log_sum - scores[np.arange(len(labels)), labels]).sum())
        right += float((scores.argmax(axis=1) == labels).sum())
    return loss / len(data), right / len(data)


class _Epochs(keras.callbacks.Callback):  # type: ignore[misc]
    """After each epoch: validate, record, keep the state, stop early where asked."""

    def __init__(
        self,
        network: Network,
        model: keras.Model,
        phase: Phase,
        validation: Labelled,
        checkpoints: Checkpoints,
        progress: Progress,
        watcher: Watcher,
        steps: int,
        state: list[Any],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__()
        self.progress = progress
        self._network, self._training, self._phase, self._validation = network, model, phase, validation
        self._checkpoints, self._watcher, self._steps, self._state, self._clock = checkpoints, watcher, steps, state, clock
        self._started = clock()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the clock."""
        self._started = self._clock()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Tell the watcher."""
        self._watcher.step(len(self.progress.history) + 1, batch + 1, self._steps)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Validate, record, keep the state."""
        loss = float((logs or {})["loss"])
        validation_loss, accuracy = validate(self._network.logits, self._validation)
        if not (math.isfinite(loss) and math.isfinite(validation_loss)):
            raise TrainingError(
                f"the loss must stay finite; in epoch {epoch + 1} it did not",
                received=f"loss {loss:g}, validation loss {validation_loss:g}",
                mend=f"start again in another --out with a learning rate below {self._phase.learning_rate:g}",
            )
        rate = float(keras.ops.convert_to_numpy(self._training.optimizer.learning_rate))
        record = EpochRecord(epoch + 1, self._clock() - self._started, rate, loss, validation_loss, accuracy)
        self.progress = self._with(record)
        self._checkpoints.save(self.progress, [keras.ops.convert_to_numpy(v) for v in self._state])
        self._watcher.epoch(record, self._phase.epochs)
        if _stops_early(self.progress, self._phase):
            self._training.stop_training = True

    def _with(self, record: EpochRecord) -> Progress:
        history = (*self.progress.history, record)
        best = max(history, key=lambda r: (r.validation_accuracy, -r.validation_loss, r.epoch))
        return Progress(self.progress.identity, history, best.epoch)
