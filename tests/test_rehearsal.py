"""Whether a network can become an artifact is known before an image is decoded, whatever the way in."""

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
from crossroads.networks.construct import choose
from crossroads.progress import Relay, Silent
from crossroads.race.candidates import convertible
from crossroads.race.records import Plan, RaceCandidate
from crossroads.recipe import Augmentation, Recipe
from crossroads.run import train as fitting
from crossroads.run.task import Tasks
from crossroads.strategies import resolve_recipe
from pictures import stripes

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks/ lies beside the package and is not installed

from benchmarks.own_networks import SIZE, network


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSROADS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", ["silu", "RandomFlip", "Resizing", "GRU"])
def test_a_network_of_ones_own_comes_to_an_artifact(name, tmp_path):
    images, labels = stripes(24, size=SIZE)
    options = {"strategy": "from-scratch", "epochs": 1, "test_fraction": 0.0}
    run = crossroads.fit((images, labels), out=tmp_path / "run", backbone=network(name), **options)
    assert len(crossroads.load(run.artifact).predict([images[0]])) == 1


@pytest.fixture
def nothing_decoded(monkeypatch):
    for module in (loading, extract):
        monkeypatch.setattr(module, "load", lambda *_, **__: pytest.fail("an image was decoded"))


WAYS = (
    {"strategy": "from-scratch", "epochs": 1},
    {"strategy": "feature-extraction"},
    {"strategy": "finetune", "epochs": 1},
    {"strategy": "warm-start", "epochs": 1},
    {},
    {"weights": "own"},
    {"weights": "own", "augmentation": Augmentation(flip=True)},
)


@pytest.mark.usefixtures("nothing_decoded")
@pytest.mark.parametrize("options", WAYS, ids=str)
def test_one_that_cannot_is_refused_before_an_image_is_decoded_whatever_the_way_in(options, tmp_path):
    with pytest.raises(ArtifactError) as refused:
        crossroads.fit(stripes(24, size=SIZE), out=tmp_path / "run", backbone=network("Discretization"), **options)
    assert "Bucketize" in str(refused.value.received)
    assert "layer 'discretization" in str(refused.value.received)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("nothing_decoded")
@pytest.mark.parametrize("name", ["Hashing", "keras.ops: svd", "IntegerLookup", "Lambda"])
def test_so_is_each_kind_of_layer_that_cannot(name, tmp_path):
    with pytest.raises(CrossroadsError):
        crossroads.fit(stripes(24, size=SIZE), out=tmp_path / "run", backbone=network(name), strategy="from-scratch")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("nothing_decoded")
def test_advice_is_not_given_on_one_that_cannot():
    with pytest.raises(ArtifactError):
        crossroads.advise(stripes(24, size=SIZE), backbones=[network("Discretization")])


def half():
    """A network of which only the part below its second layer can become an artifact."""
    images = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(4, 3, name="below")(images)
    x = keras.ops.cast(keras.layers.Discretization(bin_boundaries=[0.0, 9.0])(x), "float32")
    return keras.Model(images, keras.layers.Conv2D(4, 3, name="above")(x), name="half")


@pytest.mark.usefixtures("nothing_decoded")
def test_a_candidate_that_cannot_is_left_out_of_a_race_with_its_reason():
    model, notes = half(), []
    watcher = Relay(Silent(), after_note=notes.append)
    partition = load_and_split(stripes(24, size=SIZE), None, Recipe(), Silent())
    tasks = Tasks(partition, Path(), model, watcher)
    early = Recipe(backbone="own:half", weights="own", image_size=SIZE, strategy="early-features", cut="below")
    recipes = (early, replace(early, strategy="feature-extraction", cut=None))
    resolved = [resolve_recipe(recipe, choose(model).record, images=12, image_size=SIZE) for recipe in recipes]
    candidates = tuple(RaceCandidate(recipe, Estimate(0.5, 0.0, 1.0), 1.0) for recipe in resolved)
    plan = convertible(Plan(candidates, 60.0, 0.0, {}), partition, tasks, watcher)
    assert plan.candidates == candidates[:1]
    assert len(notes) == 1
    assert notes[0].startswith("feature-extraction of own:half is left out: ")
    assert "Bucketize" in notes[0]
    with pytest.raises(ArtifactError):
        convertible(Plan(candidates[1:], 60.0, 0.0, {}), partition, tasks, watcher)


@pytest.fixture
def results(monkeypatch):
    """What computes the graph's scores, where nothing was rehearsed before."""
    monkeypatch.setattr(_rehearsal, "_rehearsed", set())
    return _rehearsal._results


def test_networks_of_one_structure_are_rehearsed_once(results, monkeypatch):
    calls = []
    monkeypatch.setattr(_rehearsal, "_results", lambda *given: calls.append(1) or results(*given))
    for seed, classes in ((1, 2), (2, 2), (1, 3)):
        fitting.rehearse(choose(network("silu")), SIZE, classes, seed=seed)
    assert len(calls) == 2


def test_a_graph_that_computes_something_else_is_found_out(results, monkeypatch):
    monkeypatch.setattr(_rehearsal, "_results", lambda *given: results(*given)[:, ::-1])
    with pytest.raises(ArtifactError, match="must agree with the Keras model"):
        fitting.rehearse(choose(network("silu")), SIZE, 2)
    assert not _rehearsal._rehearsed


def test_rounding_that_a_network_amplifies_is_no_disagreement(results):
    """Keras itself is as far from what it computes where each weight is off by its rounding."""
    keras.utils.set_random_seed(0)
    images = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.GlobalAveragePooling2D()(images)
    for _ in range(3):
        x = keras.ops.sin(300 * keras.layers.Dense(16)(x))
    model = keras.Model(images, x, name="rough")
    apart = []

    def compared(*given):
        found = results(*given)
        apart.append(_rehearsal._relative(found, _rehearsal.computed(given[0], given[1])))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_rehearsal, "_results", compared)
        fitting.rehearse(choose(model), SIZE, 2)
    assert apart[0] > _rehearsal.REHEARSAL_TOLERANCE


def test_a_model_is_what_it_was_once_it_is_rehearsed(results):
    model = network("silu")
    before = [w.copy() for w in model.get_weights()]
    fitting.rehearse(choose(model), SIZE, 2)
    assert all((old == new).all() for old, new in zip(before, model.get_weights(), strict=True))
