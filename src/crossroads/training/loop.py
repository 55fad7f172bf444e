"""Trains one phase, with checkpoints from which an interrupted run resumes bit for bit. Only this module calls Keras' `fit`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from crossroads._runtime.faults import is_out_of_memory
from crossroads._runtime.machine import has_gpu
from crossroads._runtime.process import release_pages
from crossroads.errors import TrainingError, option
from crossroads.heads.cross_entropy import summed_metrics
from crossroads.networks.cost import multiply_adds
from crossroads.networks.network import Network
from crossroads.progress import EpochRecord, StopTraining, StopWithinEpoch, Watcher
from crossroads.strategies import Phase
from crossroads.training.augment import Augment
from crossroads.training.batches import (
    LabelledData,
    batches,
    inference_batch_size,
    parts_per_epoch,
    steps_per_call,
    steps_per_epoch,
)
from crossroads.training.batchnorm import adapted_momentum, fused_batchnorm
from crossroads.training.checkpoint import Checkpoints, TrainingState
from crossroads.training.freezing import fingerprint, freeze, require_unchanged
from crossroads.training.optimizer import RuledAdam, rules, schedule
from crossroads.training.solving import PhaseResult

ENDED = "ended"
"""Key in the facts of a training that the watcher ended. When the run is resumed, this training does not continue."""


def train(
    network: Network,
    phase: Phase,
    data: LabelledData,
    validation: LabelledData,
    checkpoints: Checkpoints,
    identity: str,
    watcher: Watcher,
) -> PhaseResult:
    """Trains `network` in place, from the newest checkpoint if there is one.

    Weights and BatchNorm statistics that the phase does not train stay bit-identical and are not in the checkpoints.

    Args:
        network: Holds the initial weights, and after training those of the best epoch.
        phase: What to train, and how.
        data: Training data, as `network.trained` takes it: images, or features if the network has a frozen part.
        validation: Validation data, which chooses the best epoch.
        checkpoints: Receives the state after each epoch.
        identity: Digest of data, splits, recipe and network; a checkpoint with another identity is refused.
        watcher: Receives steps and epochs.

    Raises:
        TrainingError: The phase augments images but trains on features, the checkpoint belongs to another run, the loss is not
            finite, memory or disk is too small, or a frozen weight changed.
        StopTraining: The watcher raised it before the first epoch was finished. Later it ends the training normally, and so does
            `StopWithinEpoch` from the first batch on.
    """
    if network.on_features and phase.augmentation.active:
        raise TrainingError(
            "images must be augmented before the frozen part of a network, and this phase trains on its features",
            code="augmentation-of-features",
            received=f"{phase.augmentation} in phase {phase.name!r}",
            hint=f"cache several {option('views')} per image, freeze nothing, or leave the augmentation out",
        )
    steps, parts = steps_per_epoch(len(data), phase.batch_size), parts_per_epoch(len(data), phase)
    frozen = freeze(network, phase)
    model = _training_model(network, phase, steps, parts // steps)
    variables = [*_changing(network, frozen), *model.optimizer.variables]
    state = checkpoints.load_for(identity)
    if state is not None:
        assign(variables, checkpoints.arrays(len(state.history)))
    epochs = _Epochs(network, model, phase, validation, checkpoints, watcher, variables, state or TrainingState(identity, (), 0))
    if not _is_over(epochs.state, phase):
        checkpoints.require_room(sum(math.prod(v.shape) * np.dtype(v.dtype).itemsize for v in variables))
        before = fingerprint(frozen)
        with _out_of_memory_refused(phase), adapted_momentum(network, phase.epochs * parts), fused_batchnorm(network):
            _fit(model, phase, data, epochs)
        require_unchanged(frozen, before)
    state = epochs.state
    if state.best != len(state.history) or epochs.stopped_within_epoch:
        assign(variables, checkpoints.arrays(state.best))
    return PhaseResult(state.history, state.best, ended=ENDED in state.facts)


def _fit(model: keras.Model, phase: Phase, data: LabelledData, epochs: _Epochs) -> None:
    """Trains the remaining epochs."""
    done = len(epochs.state.history)
    model.fit(
        batches(data, phase, model.output_shape[-1], done),
        steps_per_epoch=parts_per_epoch(len(data), phase),
        shuffle=False,  # the batches have their own order
        initial_epoch=done,
        epochs=phase.epochs,
        callbacks=[epochs],
        verbose=0,
    )


@contextmanager
def _out_of_memory_refused(phase: Phase) -> Iterator[None]:
    """Turns a backend's error about memory into a `TrainingError`. Each backend has a different error."""
    try:
        yield
    except Exception as error:  # TensorFlow's error derives directly from Exception
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            "a training batch does not fit into memory",
            code="out-of-memory",
            received=f"batches of {phase.batch_size} in phase {phase.name!r}",
            hint=f"use a smaller {option('batch_size')}, {option('image_size')} or {option('backbone')}",
        ) from error


def _changing(network: Network, frozen: Sequence[Any]) -> list[Any]:
    """Returns the variables that training changes: all that are not frozen, including the states of random generators."""
    still = {id(variable) for variable in frozen}
    return [variable for variable in network.trained.variables if id(variable) not in still]


def _training_model(network: Network, phase: Phase, steps: int, parts: int = 1) -> keras.Model:
    """Returns the compiled model that `fit` trains: inputs, augmentation, `network.trained`."""
    inputs, x = _inputs(network, phase)
    model = keras.Model(inputs[0] if len(inputs) == 1 else tuple(inputs), network.trained(x), name="training")
    loss = (
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=phase.label_smoothing)
        if phase.label_smoothing
        else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    total = phase.epochs * steps * parts  # Keras follows the schedule from part to part, not from step to step
    optimizer = RuledAdam(rules(network.blocks, model.trainable_variables, phase), schedule(phase, total), parts)
    # Keras may hold the activations of several steps that it runs together.
    together = 1 if parts > 1 else steps_per_call(steps, 0 if has_gpu() else multiply_adds(network.trained) * phase.batch_size)
    model.compile(optimizer=optimizer, loss=loss, jit_compile=_jit(), steps_per_execution=together)
    optimizer.build(model.trainable_variables)
    return model


def _inputs(network: Network, phase: Phase) -> tuple[list[Any], Any]:
    """Returns the inputs of the training model, and the tensor made from them: float images in [0, 255], or features."""
    if network.on_features:
        features = keras.Input(network.trained.input_shape[1:], dtype="float32", name="features")
        return [features], features
    images = keras.Input((network.size, network.size, 3), dtype="uint8", name="images")
    if not phase.augmentation.active:
        return [images], keras.layers.Rescaling(1.0, name="to_float")(images)
    inputs = [images, keras.Input((8,), name="maps"), keras.Input((2,), name="colour")]
    return inputs, Augment(name="augment")(tuple(inputs))


def _jit() -> bool | str:
    # On a CPU TensorFlow trains several times slower with XLA (`python -m benchmarks xla`); JAX needs it.
    return "auto" if keras.backend.backend() != "tensorflow" or has_gpu() else False


def assign(variables: Sequence[Any], arrays: Iterable[NDArray[np.generic]]) -> None:
    """Assigns the arrays of a checkpoint to variables, one by one. Raises `TrainingError` if number or shapes differ."""
    for number, (variable, array) in enumerate(zip_longest(variables, arrays)):
        if variable is None or array is None or tuple(variable.shape) != array.shape:
            raise TrainingError(
                "the checkpoint does not fit this network",
                code="checkpoint-of-another-network",
                received=f"another shape or number of arrays, from array {number} on",
                hint="start in another folder",
            )
        variable.assign(array)


def _is_over(state: TrainingState, phase: Phase) -> bool:
    """Returns whether no epoch is left, the watcher ended the training, or early stopping did."""
    losses = [record.validation_loss for record in state.history]
    if len(losses) >= phase.epochs or ENDED in state.facts:
        return True
    return bool(phase.early_stopping and losses) and len(losses) - 1 - int(np.argmin(losses)) >= phase.early_stopping


def validate(logits: keras.Model, data: LabelledData, after_batch: Callable[[], object] = lambda: None) -> tuple[float, float]:
    """Returns the mean cross-entropy in nats and the accuracy of a logits model on inputs of one view, computed in float64.

    Args:
        logits: The model.
        data: The inputs and their labels.
        after_batch: Called after each batch.
    """
    loss = correct = 0.0
    step = inference_batch_size(data.inputs)
    for first in range(0, len(data), step):
        labels = data.labels[first : first + step]
        inputs = np.asarray(data.inputs[first : first + len(labels)], dtype=np.float32)
        batch_loss, batch_correct = summed_metrics(logits.predict_on_batch(inputs), labels)
        loss, correct = loss + batch_loss, correct + batch_correct
        after_batch()
    release_pages(data.inputs)
    return loss / len(data), correct / len(data)


class _Epochs(keras.callbacks.Callback):  # type: ignore[misc]
    """Validates, records and saves after each epoch, and ends training early.

    Attributes:
        state: After the last finished epoch.
        stopped_within_epoch: Whether the watcher ended training between two batches.
    """

    def __init__(
        self,
        network: Network,
        model: keras.Model,
        phase: Phase,
        validation: LabelledData,
        checkpoints: Checkpoints,
        watcher: Watcher,
        variables: list[Any],
        state: TrainingState,
    ) -> None:
        super().__init__()
        self.state, self.stopped_within_epoch = state, False
        self._network, self._training, self._phase, self._validation = network, model, phase, validation
        self._checkpoints, self._watcher, self._variables = checkpoints, watcher, variables
        self._started, self._shortened = time.perf_counter(), False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock."""
        self._started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Calls the watcher. If it ends training, the batches of this epoch are lost, except in the first epoch if it says so."""
        try:
            self._step(batch + 1)
        except StopTraining as stop:
            self._stopped_by(stop)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Validates, records and saves."""
        if self.stopped_within_epoch:
            return
        try:
            record = self._record(epoch + 1, float((logs or {})["loss"]))
        except StopTraining as stop:
            self._stopped_by(stop)
            return
        history = (*self.state.history, record)
        best = max(history, key=lambda r: (r.validation_accuracy, -r.validation_loss, r.epoch))
        self.state = TrainingState(self.state.identity, history, best.epoch)
        self._checkpoints.save(self.state, map(keras.ops.convert_to_numpy, self._variables))
        try:
            self._watcher.epoch(record, self._phase.epochs)
        except StopTraining:
            self._end()
        if self._shortened:
            self._end()
        if _is_over(self.state, self._phase):
            self._training.stop_training = True

    def _record(self, epoch: int, loss: float) -> EpochRecord:
        """Validates an epoch. Raises `TrainingError` if a loss is not finite."""
        optimizer = self._training.optimizer
        validation_loss, accuracy = validate(self._network.trained, self._validation, self._within_validation)
        if not (math.isfinite(loss) and math.isfinite(validation_loss)):
            raise TrainingError(
                f"the loss is not finite in epoch {epoch}",
                code="loss-not-finite",
                received=f"loss {loss:g}, validation loss {validation_loss:g}",
                hint=f"start in another {option('out')} with a {option('learning_rate')} below {self._phase.learning_rate:g}",
            )
        rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
        seconds = time.perf_counter() - self._started
        return EpochRecord(self._phase.name, epoch, seconds, rate, loss, validation_loss, accuracy)

    def _step(self, done: int) -> None:
        self._watcher.step(len(self.state.history) + 1, done, self.params["steps"])

    def _within_validation(self) -> None:
        """Calls the watcher, unless it has ended training and only the validation of the first epoch is missing."""
        if self._shortened:
            return
        try:
            self._step(self.params["steps"])
        except StopWithinEpoch:
            if self.state.history:
                raise
            self._shortened = True

    def _stopped_by(self, stop: StopTraining) -> None:
        """Ends training within an epoch."""
        if self.state.history:
            self.stopped_within_epoch = True
            self._end()
        elif isinstance(stop, StopWithinEpoch):
            self._shortened = self._training.stop_training = True
        else:
            raise stop

    def _end(self) -> None:
        """Ends training for good: a resumed run does not continue it."""
        self._training.stop_training = True
        self.state = replace(self.state, facts={ENDED: True})
        self._checkpoints.save_facts(self.state)
