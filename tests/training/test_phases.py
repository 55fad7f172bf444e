"""Covers phases in sequence: each kind resumes bit for bit, a finished phase is loaded, and a solved head is that of `solve`."""

import keras
import numpy as np
import pytest
from keras import layers

from crossroads.errors import TrainingError
from crossroads.heads import solve as heads
from crossroads.networks.network import Network
from crossroads.progress import Silent
from crossroads.recipe import Augmentation
from crossroads.strategies import Solve
from crossroads.training import loop
from crossroads.training.batches import LabelledData
from crossroads.training.checkpoint import Checkpoints
from crossroads.training.loop import validate
from crossroads.training.phases import run_phase
from killing import Killed
from refusals import refused
from tiny_networks import KilledAfter, labelled, network, networks, phase, same, weights

SOLVE = Solve("head", "none", 0)
PIXELS = labelled(48), labelled(16, seed=1)


def features(made, views=1):
    """Returns the same images as features of the frozen part. Further views are darker."""
    train, held_out = PIXELS
    seen = [made.frozen.predict_on_batch((train.inputs // (v + 1)).astype(np.uint8)) for v in range(views)]
    return LabelledData(np.concatenate(seen), train.labels, views), LabelledData(
        made.frozen.predict_on_batch(held_out.inputs), held_out.labels
    )


def run(folder, plan, freeze=None, watcher=None, views=1, kind="linear"):
    """Runs every phase of a plan, and returns the last network and the results of all phases as one."""
    frozen_to = networks(kind)
    history, best, head = [], 0, None
    for number, one in enumerate(plan):
        made = frozen_to("relu2" if one.name == "head" else freeze)
        data = PIXELS if made.frozen is None else features(made, views)
        part = run_phase(made, one, *data, Checkpoints(folder / f"phase-{number}"), "id", watcher or Silent())
        best, head = len(history) + part.best, part.head or head
        history += part.history
    return made, loop.PhaseResult(tuple(history), best, head)


def figures(done):
    return [(r.phase, r.epoch, r.learning_rate, r.loss, r.validation_loss, r.validation_accuracy) for r in done.history]


EVERYTHING = phase(
    warm_up=0.2,
    weight_decay=0.05,
    layer_decay=0.7,
    label_smoothing=0.1,
    class_weights="balanced",
    augmentation=Augmentation(shift=0.1),
)
KINDS = {
    "solved, then finetuned with every option": ((SOLVE, EVERYTHING), None, 1, "linear", ("tune", 1)),
    "interrupted after the solved head": ((SOLVE, phase(epochs=1)), None, 1, "linear", ("head", 1)),
    "frozen below, BatchNorm trained": ((SOLVE, phase(train_batchnorm=True)), "relu1", 1, "linear", ("tune", 1)),
    "views of features, a head of two layers": (
        (phase(name="head"),),
        "relu2",
        3,
        "mlp",
        ("head", 1),
    ),
}


@pytest.mark.core
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * kind.startswith("interrupted")) for kind in KINDS])
def test_a_run_killed_between_epochs_resumes_bit_for_bit(tmp_path, kind):
    plan, freeze, views, head, at = KINDS[kind]
    whole, done = run(tmp_path / "whole", plan, freeze, views=views, kind=head)
    with pytest.raises(Killed):
        run(tmp_path / "broken", plan, freeze, KilledAfter(*at), views, head)
    again, resumed = run(tmp_path / "broken", plan, freeze, views=views, kind=head)
    assert same(weights(again.ship()), weights(whole.ship()))
    assert figures(resumed) == figures(done)
    assert resumed.best == done.best
    assert resumed.head == done.head


def test_a_finished_phase_is_loaded(tmp_path, monkeypatch):
    plan = (SOLVE, phase(epochs=1))
    first, done = run(tmp_path, plan)
    monkeypatch.setattr(heads, "solve", None)
    monkeypatch.setattr(loop.keras.Model, "fit", None)
    second, loaded = run(tmp_path, plan)
    assert same(weights(first.trained), weights(second.trained))
    assert loaded == done


def test_the_network_has_the_weights_of_the_best_epoch(tmp_path):
    made, done = run(tmp_path, (SOLVE, phase(epochs=3)))
    assert [(r.phase, r.epoch) for r in done.history] == [("head", 1), ("tune", 1), ("tune", 2), ("tune", 3)]
    kept = done.history[done.best - 1]
    assert kept.phase == "tune"
    assert validate(made.trained, PIXELS[1]) == pytest.approx((kept.validation_loss, kept.validation_accuracy), rel=1e-5)


@pytest.mark.core
def test_a_solved_head_equals_that_of_its_features(tmp_path):
    made, done = run(tmp_path, (SOLVE,))
    whole = network("relu2")
    seen, tested = (whole.frozen.predict_on_batch(data.inputs) for data in PIXELS)
    expected = heads.solve(seen, PIXELS[0].labels, tested, PIXELS[1].labels, 2)
    scores = made.trained.predict_on_batch(features(made)[1].inputs)
    np.testing.assert_allclose(scores, tested @ expected.kernel + expected.bias, atol=1e-4)
    assert made.trained.get_layer("head").kernel.shape == (8, 2)
    (record,) = done.history
    assert record.validation_accuracy == expected.validation_accuracy
    assert done.head["kind"] == expected.kind
    assert {row["kind"] for row in done.head["tried"]} == {"ridge", "logistic"}
    assert same(weights(made.frozen), weights(whole.frozen))


def test_views_of_one_image_are_left_out_together(tmp_path, monkeypatch):
    seen = {}
    original = heads.solve
    monkeypatch.setattr(heads, "solve", lambda *a, **options: seen.update(options, labels=a[1]) or original(*a, **options))
    run(tmp_path / "views", (SOLVE,), "relu2", views=2)
    np.testing.assert_array_equal(seen["groups"], np.tile(np.arange(48), 2))
    np.testing.assert_array_equal(seen["labels"], np.tile(PIXELS[0].labels, 2))
    run(tmp_path / "alone", (Solve("head", "balanced", 0),), "relu2")
    assert seen["groups"] is None
    np.testing.assert_allclose(seen["weights"], [1, 1])


def test_groups_of_the_data_are_left_out_together(tmp_path, monkeypatch):
    seen = {}
    original = heads.solve
    monkeypatch.setattr(heads, "solve", lambda *a, **options: seen.update(options) or original(*a, **options))
    made = network("relu2")
    train, held_out = features(made)
    grouped = LabelledData(train.inputs, train.labels, groups=np.arange(48) // 4)
    run_phase(made, SOLVE, grouped, held_out, Checkpoints(tmp_path), "id", Silent())
    np.testing.assert_array_equal(seen["groups"], np.arange(48) // 4)


def test_a_nonlinear_head_cannot_be_solved(tmp_path):
    inputs = keras.Input((8,))
    bent = keras.Model(inputs, layers.Dense(2, activation="relu", name="head")(inputs))
    made = Network(None, bent, 8, ((bent.get_layer("head"),),), bent, on_features=False, folding=None)
    with refused("head-not-linear", TrainingError, received="Dense"):
        run_phase(made, SOLVE, *PIXELS, Checkpoints(tmp_path), "id", Silent())


def test_a_solved_head_of_another_run_is_refused(tmp_path):
    run(tmp_path, (SOLVE,))
    made = network("relu2")
    with refused("checkpoint-of-another-run", TrainingError):
        run_phase(made, SOLVE, *features(made), Checkpoints(tmp_path / "phase-0"), "other", Silent())


@pytest.mark.core
def test_augmenting_features_is_refused(tmp_path):
    planned = phase(name="head", augmentation=Augmentation(shift=0.1))
    with refused("augmentation-of-features", TrainingError):
        run(tmp_path, (planned,), "relu2")


def test_a_head_on_standardized_features_gives_the_same_scores(tmp_path):
    plain, standardised = network("relu2"), network("relu2", tuned=True)
    features = LabelledData(plain.frozen.predict_on_batch(PIXELS[0].inputs), PIXELS[0].labels)
    head = next(layer for layer in standardised.trained.layers if layer.name == "head_standardise")
    head.moving_mean.assign(features.inputs.mean(axis=0))
    head.moving_variance.assign(features.inputs.var(axis=0) + 0.1)
    for made, name in ((plain, "plain"), (standardised, "standardised")):
        run_phase(made, SOLVE, features, features, Checkpoints(tmp_path / name), "id", Silent())
    expected = plain.trained.predict_on_batch(features.inputs)
    np.testing.assert_allclose(standardised.trained.predict_on_batch(features.inputs), expected, atol=1e-4)
    assert not np.allclose(plain.trained.layers[-1].get_weights()[0], standardised.trained.layers[-1].get_weights()[0])
