"""Covers the rehearsal: a network that cannot become an artifact is refused before an image is decoded."""

import sys
from dataclasses import replace
from pathlib import Path

import keras
import pytest

import crossroads
from crossroads.advice.estimate import Estimate
from crossroads.artifact import _rehearsal
from crossroads.data import loading
from crossroads.data.partition import load_and_split
from crossroads.errors import ArtifactError, CrossroadsError
from crossroads.features import extract
from crossroads.networks import agreement
from crossroads.networks.construct import choose
from crossroads.progress import Relay, Silent
from crossroads.race.candidates import convertible
from crossroads.race.records import Plan, RaceCandidate
from crossroads.recipe import Augmentation, Recipe
from crossroads.run.task import Tasks
from crossroads.run.train import rehearse
from crossroads.strategies import resolve_recipe
from pictures import stripes
from refusals import refused

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks/ is not installed

from benchmarks.own_networks import SIZE, network


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSROADS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", ["silu", "RandomFlip", *(pytest.param(n, marks=pytest.mark.slow) for n in ("Resizing", "GRU"))])
def test_a_network_of_the_user_becomes_an_artifact(name, tmp_path):
    images, labels = stripes(24, size=SIZE)
    options = {"strategy": "from-scratch", "epochs": 1, "test_fraction": 0.0}
    run = crossroads.fit((images, labels), out=tmp_path / "run", backbone=network(name), **options)
    assert len(crossroads.load(run.artifact).predict([images[0]])) == 1


@pytest.fixture
def nothing_decoded(monkeypatch):
    for module in (loading, extract):
        monkeypatch.setattr(module, "load", lambda *_, **__: pytest.fail("an image was decoded"))


OPTIONS = (
    {"strategy": "from-scratch", "epochs": 1},
    {"strategy": "feature-extraction"},
    {"strategy": "finetune", "epochs": 1},
    {"strategy": "warm-start", "epochs": 1},
    {},
    {"weights": "own"},
    {"weights": "own", "augmentation": Augmentation(flip=True)},
)


@pytest.mark.usefixtures("nothing_decoded")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_an_unconvertible_network_is_refused_before_an_image_is_decoded(options, tmp_path):
    with pytest.raises(ArtifactError) as error:
        crossroads.fit(stripes(24, size=SIZE), out=tmp_path / "run", backbone=network("Discretization"), **options)
    assert "Bucketize" in str(error.value.received)
    assert "layer 'discretization" in str(error.value.received)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("nothing_decoded")
@pytest.mark.parametrize("name", ["Hashing", "keras.ops: svd", "IntegerLookup", "Lambda"])
def test_each_kind_of_unconvertible_layer_is_refused(name, tmp_path):
    with pytest.raises(CrossroadsError):
        crossroads.fit(stripes(24, size=SIZE), out=tmp_path / "run", backbone=network(name), strategy="from-scratch")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("nothing_decoded")
def test_advice_on_an_unconvertible_network_is_refused():
    with pytest.raises(ArtifactError):
        crossroads.advise(stripes(24, size=SIZE), backbones=[network("Discretization")])


def half():
    """Returns a network that can become an artifact only if it is cut below its second layer."""
    images = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(4, 3, name="below")(images)
    x = keras.ops.cast(keras.layers.Discretization(bin_boundaries=[0.0, 9.0])(x), "float32")
    return keras.Model(images, keras.layers.Conv2D(4, 3, name="above")(x), name="half")


@pytest.mark.usefixtures("nothing_decoded")
def test_an_unconvertible_candidate_is_left_out_of_a_race_with_a_note():
    model, notes = half(), []
    watcher = Relay(Silent(), after_note=notes.append)
    partition = load_and_split(stripes(24, size=SIZE), None, Recipe(), Silent())
    tasks = Tasks(partition, Path(), model, watcher)
    early = Recipe(backbone="own:half", weights="own", image_size=SIZE, strategy="finetune-early", cut="below")
    recipes = (early, replace(early, strategy="finetune", cut=None))
    resolved = [resolve_recipe(recipe, choose(model).record, images=12, image_size=SIZE) for recipe in recipes]
    candidates = tuple(RaceCandidate(recipe, Estimate(0.5, 0.0, 1.0), 1.0) for recipe in resolved)
    plan = convertible(Plan(candidates, 60.0, 0.0, {}), partition, tasks, watcher)
    assert plan.candidates == candidates[:1]
    assert len(notes) == 1
    assert (notes[0].code, notes[0].figures["strategy"]) == ("candidate-left-out", "finetune")
    assert "Bucketize" in notes[0]
    with pytest.raises(ArtifactError):
        convertible(Plan(candidates[1:], 60.0, 0.0, {}), partition, tasks, watcher)


@pytest.fixture
def results(monkeypatch):
    """Returns the function that computes the scores of the graph. No structure has been rehearsed before."""
    monkeypatch.setattr(_rehearsal, "_rehearsed", set())
    return _rehearsal._results


def test_networks_of_one_structure_are_rehearsed_once(results, monkeypatch):
    calls = []
    monkeypatch.setattr(_rehearsal, "_results", lambda *given: calls.append(1) or results(*given))
    for seed, classes in ((1, 2), (2, 2), (1, 3)):
        rehearse(choose(network("silu")), SIZE, classes, seed=seed)
    assert len(calls) == 2


def test_a_graph_that_computes_other_scores_is_refused(results, monkeypatch):
    monkeypatch.setattr(_rehearsal, "_results", lambda *given: results(*given)[:, ::-1])
    with refused("graph-disagrees", ArtifactError):
        rehearse(choose(network("silu")), SIZE, 2)
    assert not _rehearsal._rehearsed


def test_rounding_that_a_network_amplifies_is_allowed(results):
    """The scores of Keras itself differ as much if each weight is changed by a rounding error."""
    keras.utils.set_random_seed(0)
    images = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.GlobalAveragePooling2D()(images)
    for _ in range(3):
        x = keras.ops.sin(300 * keras.layers.Dense(16)(x))
    model = keras.Model(images, x, name="rough")
    differences = []

    def compared(*given):
        found = results(*given)
        differences.append(agreement.relative_difference(found, agreement.computed(given[0], given[1])))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_rehearsal, "_results", compared)
        rehearse(choose(model), SIZE, 2)
    assert differences[0] > _rehearsal.REHEARSAL_TOLERANCE


def test_a_rehearsal_does_not_change_the_model(results):
    model = network("silu")
    before = [w.copy() for w in model.get_weights()]
    rehearse(choose(model), SIZE, 2)
    assert all((old == new).all() for old, new in zip(before, model.get_weights(), strict=True))
