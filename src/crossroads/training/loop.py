"""One phase of training: the only caller of Keras' `fit`, with checkpoints that a killed run is taken up from bit by bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from crossroads._runtime.faults import is_out_of_memory
from crossroads._runtime.machine import has_gpu
from crossroads.errors import TrainingError
from crossroads.heads.metrics import sums
from crossroads.networks.network import Network
from crossroads.progress import EpochRecord, StopTraining, Watcher
from crossroads.strategies import Phase
from crossroads.training.augment import Augment
from crossroads.training.batches import TOGETHER, Labelled, batches, rows_at_once, steps_of
from crossroads.training.batchnorm import in_one_pass, settling
from crossroads.training.checkpoint import Checkpoints, Progress
from crossroads.training.freezing import fingerprint, freeze, require_unchanged
from crossroads.training.mixing import Mix
from crossroads.training.optimizer import RuledAdam, rules, schedule

ENOUGH = "ended"
"""Among the facts of a phase's progress where the watcher ended it: it stays ended when it is taken up."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a phase leaves: the network it was given holds the weights of the best epoch.

    Attributes:
        history: One record an epoch.
        best: The record whose weights the network holds, counted from 1: the one with the highest validation accuracy, then the
            lowest validation loss, then the later one.
        head: Where a head was solved: its kind, its penalty and every candidate, as plain JSON values; else None.
        ended: Whether the watcher had enough before the last epoch.
    """

    history: tuple[EpochRecord, ...]
    best: int
    head: dict[str, Any] | None = None
    ended: bool = False


def train(
    network: Network, phase: Phase, data: Labelled, validation: Labelled, checkpoints: Checkpoints, identity: str, watcher: Watcher
) -> Trained:
    """Train `network` in place, from the newest checkpoint where there is one.

    What the phase does not train keeps every bit, BatchNorm's statistics included, and stands in no checkpoint.

    Args:
        network: Holds its first weights; holds those of the best epoch after.
        phase: What to do.
        data: What to train on, as `network.trained` takes it: images, or features where the network has a frozen part.
        validation: What chooses the best epoch.
        checkpoints: Where the state is kept after each epoch.
        identity: Digest of data, splits, recipe and network; a checkpoint of another identity is refused.
        watcher: Is told of each step and epoch.

    Raises:
        TrainingError: The phase moves images where there are features, the checkpoint belongs to another run, the loss is not
            finite, memory does not hold a batch, the disk does not hold a checkpoint, or a frozen weight changed.
        StopTraining: The watcher raised it before the first epoch was done; later the epochs so far are what is trained.
    """
    if network.frozen is not None and phase.augmentation.active:
        raise TrainingError(
            "images can only be moved before the frozen part of a network, and this phase trains on its features",
            received=f"{phase.augmentation} in phase {phase.name!r}",
            hint="make the features of several views (--views), freeze nothing, or leave the augmentation out",
        )
    classes = network.trained.output_shape[-1]
    steps = steps_of(len(data), phase.batch_size)
    still = freeze(network, phase)
    model = _training_model(network, phase, steps)
    state = [*_moving(network, still), *model.optimizer.state]
    progress = checkpoints.resumed(identity)
    if progress is not None:
        assign(state, checkpoints.arrays(len(progress.history)))
    epochs = _Epochs(network, model, phase, validation, checkpoints, progress or Progress(identity, (), 0), watcher, steps, state)
    done = len(epochs.progress.history)
    if done < phase.epochs and not _over(epochs.progress, phase):
        checkpoints.require_room(sum(math.prod(v.shape) * np.dtype(v.dtype).itemsize for v in state))
        before = fingerprint(still)
        with _memory_in_words(phase), settling(network, phase.epochs * steps), in_one_pass(network):
            model.fit(
                batches(data, phase, classes, done),
                steps_per_epoch=steps,
                shuffle=False,  # the batches come in their own order
                initial_epoch=done,
                epochs=phase.epochs,
                callbacks=[epochs],
                verbose=0,
            )
        require_unchanged(still, before)
    progress = epochs.progress
    # An average is not what the last step left: the state is that of the steps, from which a run goes on.
    if progress.best != len(progress.history) or phase.ema or epochs.in_mid_epoch:
        assign(state, checkpoints.arrays(progress.best))
        _assign_all(model.trainable_variables, model.optimizer.averages)
    return Trained(progress.history, progress.best, ended=ENOUGH in progress.facts)


@contextmanager
def _memory_in_words(phase: Phase) -> Iterator[None]:
    """Inside, want of memory, which each backend tells in its own way, is a `TrainingError`."""
    try:
        yield
    except Exception as error:  # TensorFlow's kind of it is a subclass of Exception alone
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            "memory must hold a batch with all that training keeps of it",
            received=f"batches of {phase.batch_size} in phase {phase.name!r}",
            hint="use a smaller --batch-size, a smaller --image-size, or a smaller backbone",
        ) from error


def _moving(network: Network, still: Sequence[Any]) -> list[Any]:
    """What training changes in the network: all but what is frozen; the states of its random numbers too."""
    frozen = {id(variable) for variable in still}
    return [variable for variable in network.trained.variables if id(variable) not in frozen]


def _training_model(network: Network, phase: Phase, steps: int) -> keras.Model:
    inputs, x = _entrance(network, phase)
    if phase.mixup:
        extra = [keras.Input((1,), dtype="int32", name="others"), keras.Input((1,), name="shares")]
        inputs, x = [*inputs, *extra], Mix(name="mix")((x, *extra))
    model = keras.Model(inputs[0] if len(inputs) == 1 else tuple(inputs), network.trained(x), name="training")
    loss = (
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=phase.label_smoothing)
        if phase.label_smoothing or phase.mixup
        else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    total = phase.epochs * steps
    each = rules(network.blocks, model.trainable_variables, phase, total)
    together = TOGETHER if steps % TOGETHER == 0 else 1
    optimizer = RuledAdam(each, schedule(phase, total), phase.ema)
    model.compile(optimizer=optimizer, loss=loss, jit_compile=_jit(), steps_per_execution=together)
    optimizer.build(model.trainable_variables)
    return model


def _entrance(network: Network, phase: Phase) -> tuple[list[Any], Any]:
    """The inputs of the training graph, and what comes of them: float images in [0, 255], or features."""
    if network.frozen is not None:
        features = keras.Input(network.trained.input_shape[1:], dtype="float32", name="features")
        return [features], features
    images = keras.Input((network.size, network.size, 3), dtype="uint8", name="images")
    if not phase.augmentation.active:
        return [images], keras.layers.Rescaling(1.0, name="to_float")(images)
    inputs = [images, keras.Input((8,), name="maps"), keras.Input((2,), name="colour")]
    return inputs, Augment(name="augment")(tuple(inputs))


def _jit() -> bool | str:
    # On a CPU TensorFlow trains several times slower with XLA (`python -m benchmarks xla`); JAX cannot do without.
    return "auto" if keras.backend.backend() != "tensorflow" or has_gpu() else False


def assign(variables: Sequence[Any], arrays: Iterable[NDArray[np.generic]]) -> None:
    """Give variables the values of a checkpoint, one by one. Raises `TrainingError` where number or shapes differ."""
    for number, (variable, array) in enumerate(zip_longest(variables, arrays)):
        if variable is None or array is None or tuple(variable.shape) != array.shape:
            raise TrainingError(
                "the checkpoint does not fit this network",
                received=f"array {number} of another shape, or another number of arrays",
                hint="start again in another folder",
            )
        variable.assign(array)


def _assign_all(variables: Sequence[Any], values: Sequence[Any]) -> None:
    for variable, value in zip(variables, values, strict=False):  # no averages, nothing to give
        variable.assign(value)


def _over(progress: Progress, phase: Phase) -> bool:
    """Whether a phase has ended before its last epoch: the watcher had enough, or the validation loss has long been no better."""
    if ENOUGH in progress.facts:
        return True
    if not phase.early_stopping or not progress.history:
        return False
    losses = [record.validation_loss for record in progress.history]
    return len(losses) - 1 - int(np.argmin(losses)) >= phase.early_stopping


def validate(logits: keras.Model, data: Labelled) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy of a logits model on labelled inputs of one view, computed in float64."""
    loss = right = 0.0
    step = rows_at_once(data.inputs)
    for first in range(0, len(data), step):
        labels = data.labels[first : first + step]
        inputs = np.asarray(data.inputs[first : first + len(labels)], dtype=np.float32)
        found = sums(logits.predict_on_batch(inputs), labels)
        loss, right = loss + found[0], right + found[1]
    return loss / len(data), right / len(data)


@contextmanager
def _averaged(variables: Sequence[Any], averages: Sequence[NDArray[np.floating]]) -> Iterator[None]:
    """Inside, the variables have the values of their averages, where averages are kept."""
    raw = [keras.ops.convert_to_numpy(variable).copy() for variable in variables] if averages else []
    _assign_all(variables, averages)
    try:
        yield
    finally:
        _assign_all(variables, raw)


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
        self.progress, self.in_mid_epoch = progress, False
        self._network, self._training, self._phase, self._validation = network, model, phase, validation
        self._checkpoints, self._watcher, self._steps, self._state, self._clock = checkpoints, watcher, steps, state, clock
        self._started = clock()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the clock."""
        self._started = self._clock()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Tell the watcher; where it has enough, the batches of this epoch are lost."""
        try:
            self._watcher.step(len(self.progress.history) + 1, batch + 1, self._steps)
        except StopTraining:
            if not self.progress.history:
                raise
            self.in_mid_epoch = True
            self._end()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Validate, record, keep the state."""
        if self.in_mid_epoch:
            return
        loss, optimizer = float((logs or {})["loss"]), self._training.optimizer
        with _averaged(self._training.trainable_variables, optimizer.averages):
            validation_loss, accuracy = validate(self._network.trained, self._validation)
        if not (math.isfinite(loss) and math.isfinite(validation_loss)):
            raise TrainingError(
                f"the loss must stay finite; in epoch {epoch + 1} it did not",
                received=f"loss {loss:g}, validation loss {validation_loss:g}",
                hint=f"start again in another --out with a learning rate below {self._phase.learning_rate:g}",
            )
        rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
        seconds = self._clock() - self._started
        record = EpochRecord(self._phase.name, epoch + 1, seconds, rate, loss, validation_loss, accuracy)
        self.progress = self._with(record)
        self._checkpoints.save(self.progress, map(keras.ops.convert_to_numpy, self._state))
        try:
            self._watcher.epoch(record, self._phase.epochs)
        except StopTraining:
            self._end()
        if _over(self.progress, self._phase):
            self._training.stop_training = True

    def _end(self) -> None:
        """Leave it at the epochs so far, also when the phase is taken up."""
        self._training.stop_training = True
        self.progress = replace(self.progress, facts={ENOUGH: True})
        self._checkpoints.mark(self.progress)

    def _with(self, record: EpochRecord) -> Progress:
        history = (*self.progress.history, record)
        best = max(history, key=lambda r: (r.validation_accuracy, -r.validation_loss, r.epoch))
        return Progress(self.progress.identity, history, best.epoch)
