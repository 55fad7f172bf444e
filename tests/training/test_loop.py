"""Covers one phase on a tiny network: it learns, keeps the best epoch, and resumes bit for bit after a kill."""

import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from crossroads.errors import TrainingError
from crossroads.networks.catalog import backbone
from crossroads.networks.network import Parts, assemble, head_layers, seeded
from crossroads.progress import Silent, StopTraining, StopWithinEpoch
from crossroads.recipe import Augmentation, Recipe
from crossroads.strategies import plan_phases, resolve_recipe
from crossroads.training.batches import STEPS_PER_EXECUTION, LabelledData, steps_per_epoch
from crossroads.training.checkpoint import Checkpoints
from crossroads.training.loop import train, validate
from killing import Killed, StopAt
from refusals import refused
from tiny_networks import labelled, same

pytestmark = pytest.mark.core
SLOW = pytest.mark.slow


DATA, VALIDATION = labelled(96), labelled(32, seed=1)


def phase(**options):
    chosen = {"epochs": 3, "batch_size": 16, "label_smoothing": 0.1, "augmentation": Augmentation(shift=0.1)} | options
    return plan_phases(resolve_recipe(Recipe(strategy="from-scratch", **chosen), backbone("small-cnn"), images=96, image_size=16))[
        0
    ]


def small():
    """Returns a backbone with every kind of state: weights, BatchNorm statistics, and the random generator of dropout."""
    images = keras.Input((16, 16, 3))
    x = images
    for width in (8, 16):
        x = layers.Conv2D(width, 3, strides=2, use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.8)(x))
    return Parts((layers.Rescaling(1 / 127.5, offset=-1),), keras.Model(images, layers.Dropout(0.1)(x)))


def run(folder, phase, watcher=None, identity="id", seed=0):
    with seeded(seed):
        network = assemble(small(), 16, head_layers("linear", 2))
    done = train(network, phase, DATA, VALIDATION, Checkpoints(folder), identity, watcher or Silent())
    return network, done


def weights(network):
    return [keras.ops.convert_to_numpy(v).copy() for v in network.trained.variables]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    network, done = run(tmp_path_factory.mktemp("whole"), phase())
    return weights(network), done


def test_it_learns(tmp_path):
    network, done = run(tmp_path, phase(epochs=6))
    assert done.history[-1].loss < done.history[0].loss
    assert validate(network.trained, VALIDATION)[1] > 0.9


def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not(tmp_path, whole):
    again, _ = run(tmp_path / "again", phase())
    other, _ = run(tmp_path / "other", phase(seed=1))
    assert same(weights(again), whole[0])
    assert not same(weights(other), whole[0])


@pytest.mark.parametrize("at", [pytest.param((1, 2), marks=SLOW), (2, 3), pytest.param((3, 6), marks=SLOW)], ids=str)
def test_an_interrupted_run_resumes_bit_for_bit(tmp_path, whole, at):
    with pytest.raises(Killed):
        run(tmp_path, phase(), StopAt(*at))
    network, done = run(tmp_path, phase())
    assert same(weights(network), whole[0])
    assert [replace(r, seconds=0) for r in done.history] == [replace(r, seconds=0) for r in whole[1].history]


def test_several_steps_per_execution_resume_bit_for_bit(tmp_path):
    many = phase(batch_size=4, epochs=2)
    assert steps_per_epoch(len(DATA), 4) == 3 * STEPS_PER_EXECUTION
    whole, _ = run(tmp_path / "whole", many)
    with pytest.raises(Killed):
        run(tmp_path / "broken", many, StopAt(2, 2 * STEPS_PER_EXECUTION))
    network, done = run(tmp_path / "broken", many)
    assert same(weights(network), weights(whole))
    assert [r.epoch for r in done.history] == [1, 2]


def test_the_best_epoch_is_kept(tmp_path):
    network, done = run(tmp_path, phase(epochs=5, learning_rate=0.02))
    best = max(done.history, key=lambda r: (r.validation_accuracy, -r.validation_loss, r.epoch))
    assert done.best == best.epoch
    loss, accuracy = validate(network.trained, VALIDATION)
    assert accuracy == best.validation_accuracy
    assert loss == pytest.approx(best.validation_loss, rel=1e-6)


def test_early_stopping_ends_once_the_loss_no_longer_falls(tmp_path):
    _, done = run(tmp_path, phase(epochs=40, learning_rate=0.05, schedule="constant", early_stopping=2))
    losses = [r.validation_loss for r in done.history]
    assert len(losses) < 40
    assert len(losses) - 1 - int(np.argmin(losses)) == 2


class Stops(Silent):
    """Stops training at a step or after an epoch."""

    def __init__(self, epoch, step=None):
        self.at = (epoch, step)

    def step(self, epoch, done, total):
        if self.at[0] == epoch and self.at[1] is not None and done >= self.at[1]:
            raise StopTraining

    def epoch(self, record, total):
        if self.at == (record.epoch, None):
            raise StopTraining


@pytest.mark.parametrize(
    ("watcher", "finished"), [pytest.param(Stops(2), 2, marks=SLOW), (Stops(3, 1), 2)], ids=["after an epoch", "within an epoch"]
)
def test_a_watcher_ends_training_for_good_with_the_finished_epochs(tmp_path, watcher, finished):
    planned = phase(epochs=5)
    network, done = run(tmp_path / "ended", planned, watcher)
    assert [record.epoch for record in done.history] == list(range(1, finished + 1))
    best = done.history[done.best - 1]
    loss, accuracy = validate(network.trained, VALIDATION)
    assert (loss, accuracy) == (pytest.approx(best.validation_loss, rel=1e-6), best.validation_accuracy)
    again, loaded = run(tmp_path / "ended", planned)
    assert loaded == done
    assert same(weights(again), weights(network))


class StopsWithin(Silent):
    """Ends training within the first epoch, at a batch or in the validation, which repeats the number of the last batch."""

    def __init__(self, at, times=1, kind=StopWithinEpoch):
        self.at, self.left, self.kind = at, times, kind

    def step(self, epoch, done, total):
        if done == self.at:
            self.left -= 1
        if self.left <= 0:
            raise self.kind


@pytest.mark.parametrize("watcher", [StopsWithin(2), StopsWithin(6, times=2)], ids=["at a batch", "in the validation"])
def test_a_part_of_the_first_epoch_counts_if_the_watcher_says_so(tmp_path, watcher):
    network, done = run(tmp_path / "part", phase(), watcher)
    assert len(done.history) == 1
    assert done.ended
    assert validate(network.trained, VALIDATION)[1] == done.history[0].validation_accuracy
    again, loaded = run(tmp_path / "part", phase())
    assert loaded == done
    assert same(weights(again), weights(network))


def test_a_stop_in_the_validation_ends_training_without_that_epoch(tmp_path):
    class Stops(Silent):
        def __init__(self):
            self.last = None

        def step(self, epoch, done, total):
            if epoch == 2 and self.last == (epoch, done):
                raise StopTraining
            self.last = (epoch, done)

    _, done = run(tmp_path / "second", phase(), Stops())
    assert [record.epoch for record in done.history] == [1]
    assert done.ended
    with pytest.raises(StopTraining):
        run(tmp_path / "first", phase(), StopsWithin(6, times=2, kind=StopTraining))


def test_a_stop_before_the_first_epoch_is_raised(tmp_path):
    with pytest.raises(StopTraining):
        run(tmp_path, phase(), Stops(1, 1))


def test_a_loss_that_is_not_finite_is_refused(tmp_path):
    with refused("loss-not-finite", TrainingError):
        run(tmp_path, replace(phase(), learning_rate=float("inf"), schedule="constant"))


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    run(tmp_path, phase(epochs=1), identity="one")
    with refused("checkpoint-of-another-run", TrainingError):
        run(tmp_path, phase(epochs=1), identity="two")


def test_validate_returns_the_mean_cross_entropy_and_the_accuracy(tmp_path):
    network, _ = run(tmp_path, phase(epochs=1))
    probabilities = network.ship().predict_on_batch(VALIDATION.inputs).astype(np.float64)
    expected = -np.log(probabilities[np.arange(32), VALIDATION.labels]).mean()
    loss, accuracy = validate(network.trained, VALIDATION)
    assert loss == pytest.approx(expected, rel=1e-4)
    assert accuracy == (probabilities.argmax(1) == VALIDATION.labels).mean()


def test_large_images_are_validated_in_small_batches():
    sizes = []

    class Scores:
        def predict_on_batch(self, inputs):
            sizes.append(len(inputs))
            return np.eye(2)[[0] * len(inputs)]

    rows = np.broadcast_to(np.zeros((1, 224, 224, 3), np.uint8), (70, 224, 224, 3))
    _, accuracy = validate(Scores(), LabelledData(rows, (np.arange(70) % 10 == 0).astype(np.int32)))
    assert accuracy == pytest.approx(0.9)
    assert sum(sizes) == 70
    assert max(sizes) <= 32


def test_class_weights_and_a_schedule_in_one_cycle_can_train(tmp_path):
    """Other tests train by the other schedules."""
    _, done = run(tmp_path, phase(epochs=1, schedule="one-cycle", class_weights="balanced", label_smoothing=0.0))
    assert np.isfinite(done.history[-1].loss)


@SLOW  # tests/run/test_folder.py kills a whole run
def test_a_process_killed_within_an_epoch_resumes_bit_for_bit(tmp_path, whole):
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        sys.path[:0] = sys.argv[2:]
        import test_loop
        class Kill(test_loop.Silent):
            def step(self, epoch, done, total):
                if (epoch, done) == (2, 4):
                    os.kill(os.getpid(), signal.SIGKILL)
        test_loop.run(Path(sys.argv[1]), test_loop.phase(), Kill())
        """
    )
    here = Path(__file__).parent
    killed = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), str(here), str(here.parent)], capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    network, _ = run(tmp_path, phase())
    assert same(weights(network), whole[0])


@pytest.fixture
def fails(monkeypatch):
    """Lets the training of the backend raise an error."""

    def failing(error):
        def fit(*_, **__):
            raise error

        monkeypatch.setattr(keras.Model, "fit", fit)

    return failing


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")], ids=str
)
def test_a_lack_of_memory_is_refused(tmp_path, fails, error):
    fails(error)
    with refused("out-of-memory", TrainingError, received="batches of 16 in phase 'train'"):
        run(tmp_path, phase())


def test_any_other_error_of_the_backend_is_not_changed(tmp_path, fails):
    fails(RuntimeError("no such kernel"))
    with pytest.raises(RuntimeError, match="no such kernel"):
        run(tmp_path, phase())


def test_parts_of_batches_train_as_whole_batches_without_batchnorm(tmp_path):
    plain = phase(augmentation=Augmentation(), augment=False, schedule="one-cycle", label_smoothing=0.0)
    whole, parts = (run_head(tmp_path / str(count), replace(plain, parts=count)) for count in (1, 4))
    np.testing.assert_allclose(parts, whole, atol=2e-3)


def run_head(folder, phase):
    """Returns the weights of a linear head on flattened pixels, which has neither BatchNorm nor dropout."""
    images = keras.Input((16, 16, 3))
    flat = Parts((), keras.Model(images, layers.AveragePooling2D(4)(images)))
    with seeded(0):
        network = assemble(flat, 16, head_layers("linear", 2))
    train(network, phase, DATA, VALIDATION, Checkpoints(folder), "id", Silent())
    return weights(network)[0]


def test_training_in_parts_resumes_bit_for_bit(tmp_path):
    split = replace(phase(epochs=2), parts=2)
    network, _ = run(tmp_path / "whole", split)
    with pytest.raises(Killed):
        run(tmp_path / "again", split, StopAt(2, 3))
    resumed, _ = run(tmp_path / "again", split)
    assert same(weights(network), weights(resumed))
