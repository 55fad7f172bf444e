"""Covers the scikit-learn estimator: labels, parameters, pickles and errors."""

import copy
import gc
import pickle
import re
import shutil
from pathlib import Path

import joblib
import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

import crossroads
import tiny_graphs
from crossroads import estimator
from crossroads.artifact import _export
from crossroads.errors import ArtifactError, DataError, RecipeError
from crossroads.recipe.fields import options
from pictures import stripes
from refusals import refused

pytestmark = pytest.mark.core
TRAINED = {"strategy": "from-scratch", "backbone": "quiz-cnn", "epochs": 6, "batch_size": 16, "image_size": 16, "validation": 0.2}


@pytest.fixture(scope="module")
def fitted():
    images, labels = stripes(60)
    return crossroads.ImageClassifier(**TRAINED).fit(images, labels)


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    """Returns parameters with which a fit takes half a second: it solves a head on the features of a tiny graph."""
    graph = tiny_graphs.written(tiny_graphs.convnet(), tmp_path_factory.mktemp("graph") / "tiny.xml")
    options = {"strategy": "feature-extraction", "backbone": str(graph), "preprocessing": "tf", "image_size": tiny_graphs.SIZE}
    return options | {"validation": 0.2}


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(estimator, "fit", lambda *_, **__: pytest.fail("training started"))


def _by_joblib(model, folder):
    joblib.dump(model, folder / "model.joblib")
    return joblib.load(folder / "model.joblib")


def test_it_predicts_labels_as_they_were_given(fitted):
    images, labels = stripes(20, seed=5)
    assert fitted.score(images, labels) >= 0.9
    assert fitted.classes_.tolist() == ["level", "upright"]
    assert set(fitted.predict(images)) <= set(labels)


def test_probabilities_are_in_the_order_of_classes(fitted):
    images, _ = stripes(20, seed=5)
    probabilities = fitted.predict_proba(images)
    assert probabilities.shape == (20, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert (fitted.classes_[probabilities.argmax(axis=1)] == fitted.predict(images)).all()


def test_classes_are_sorted_as_in_scikit_learn(solved):
    images, labels = stripes(60, classes=("b", "a"))
    model = crossroads.ImageClassifier(**solved).fit(images, np.where(labels == "a", 10, -2))
    assert model.classes_.tolist() == [-2, 10]
    assert (model.predict(images) == np.where(labels == "a", 10, -2)).mean() > 0.9


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (lambda y: y.astype(float), [2.0, 10.0]),
        (lambda y: y.astype(str).astype(object), ["10", "2"]),
        (lambda y: y == 10, [False, True]),
    ],
    ids=["floats", "objects", "booleans"],
)
def test_labels_of_any_type_are_predicted_as_given(solved, kind, expected):
    images, numbers = stripes(60, classes=(2, 10))
    y = kind(numbers)
    model = crossroads.ImageClassifier(**solved).fit(images, y)
    assert model.classes_.tolist() == expected
    predicted = model.predict(images)
    assert predicted.dtype == model.classes_.dtype
    assert (predicted == np.asarray(y)).mean() > 0.9
    assert set(model.predictor_.classes) == ({"False", "True"} if expected == [False, True] else {"2", "10"})


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.eye(2)[np.arange(60) % 2], "y should be a 1d array"),
        (np.linspace(0, 1, 60), "Unknown label type: continuous"),
        (np.where(np.arange(60) % 2, 1.0, np.nan), "NaN"),
        (np.array([b"a", b"b"] * 30), "bytes"),
    ],
    ids=["one-hot", "continuous", "NaN", "bytes"],
)
@pytest.mark.usefixtures("no_training")
def test_what_is_no_column_of_class_labels_is_refused_by_scikit_learn(y, message):
    with pytest.raises((ValueError, TypeError), match=message):
        crossroads.ImageClassifier(**TRAINED).fit(stripes(60)[0], y)


@pytest.mark.parametrize(
    ("y", "code"),
    [(np.array(["a", ""] * 30), "empty-label"), (np.arange(59) % 2, "length-mismatch")],
    ids=["empty", "too few"],
)
@pytest.mark.usefixtures("no_training")
def test_empty_or_too_few_labels_are_refused_before_training(y, code):
    with refused(code, DataError):
        crossroads.ImageClassifier(**TRAINED).fit(stripes(60)[0], y)


def test_images_of_16_bits_are_predicted_like_those_of_8(fitted):
    images, _ = stripes(8, seed=5)
    np.testing.assert_allclose(fitted.predict_proba(images.astype(np.uint16) * 257), fitted.predict_proba(images), atol=1e-6)


@pytest.mark.parametrize("through", [lambda m, path: pickle.loads(pickle.dumps(m)), _by_joblib, lambda m, path: copy.deepcopy(m)])
def test_a_pickle_gives_equal_predictions(fitted, tmp_path, through):
    images, _ = stripes(20, seed=5)
    again = through(fitted, tmp_path)
    np.testing.assert_array_equal(again.predict_proba(images), fitted.predict_proba(images))
    np.testing.assert_array_equal(again.predict(images), fitted.predict(images))
    assert again.run_.metrics == fitted.run_.metrics
    assert again.get_params() == fitted.get_params()
    assert again.run_.artifact != fitted.run_.artifact


def test_a_pickle_outlives_its_estimator(fitted):
    first = pickle.loads(pickle.dumps(fitted))
    folder, dumped = first.run_.artifact, pickle.dumps(first)
    del first
    gc.collect()
    assert not folder.exists()
    images, _ = stripes(4, seed=5)
    np.testing.assert_array_equal(pickle.loads(dumped).predict_proba(images), fitted.predict_proba(images))


def test_an_unfitted_estimator_can_be_pickled():
    assert pickle.loads(pickle.dumps(crossroads.ImageClassifier(**TRAINED))).get_params()["epochs"] == 6


def test_a_saved_artifact_predicts_alike_and_is_never_overwritten(fitted, tmp_path):
    images, _ = stripes(4, seed=5)
    kept = fitted.save(tmp_path / "kept")
    probabilities = crossroads.Predictor.load(kept).probabilities(images)
    np.testing.assert_allclose(probabilities, fitted.predict_proba(images), atol=1e-6)
    with refused("artifact-exists", ArtifactError, field="out"):
        fitted.save(kept)


def test_every_parameter_is_a_field_of_the_recipe(monkeypatch):
    recipe, parameters = crossroads.Recipe(), crossroads.ImageClassifier().get_params()
    assert parameters == {name: getattr(recipe, name) for name in parameters}
    excluded = {"data", "test", "class_names", "test_fraction", "strict"}
    assert parameters.keys() == options(crossroads.Recipe).keys() - excluded
    with pytest.raises(TypeError, match="epoch"):
        crossroads.ImageClassifier(epoch=3)
    given = []

    def stop(*_, recipe, **__):
        given.append(recipe)
        raise InterruptedError

    monkeypatch.setattr(estimator, "fit", stop)
    model = clone(crossroads.ImageClassifier(budget="5m", seed=3))
    with pytest.raises(InterruptedError):
        model.fit(*stripes(60))
    assert given == [crossroads.Recipe(budget=300.0, seed=3, test_fraction=0.0)]


@pytest.mark.parametrize(
    ("groups", "code", "received"),
    [
        (np.arange(59), "wrong-shape", "shape (59,)"),
        (np.zeros((60, 2), int), "wrong-shape", "shape (60, 2)"),
        (3, "wrong-shape", "shape ()"),
        (np.array([np.nan, *range(59)]), "missing-group", "nan in row 0"),
    ],
    ids=["too few", "two columns", "a number", "NaN"],
)
@pytest.mark.usefixtures("no_training")
def test_wrong_groups_are_refused_before_training(groups, code, received):
    with refused(code, DataError, field="groups", received=received):
        crossroads.ImageClassifier(**TRAINED).fit(*stripes(60), groups=groups)


def test_clone_and_cross_validation_work_on_arrays(solved):
    model = clone(crossroads.ImageClassifier(**solved))
    assert model.get_params()["preprocessing"] == "tf"
    images, labels = stripes(60)
    scores = cross_val_score(model, images, labels, cv=2)
    assert scores.shape == (2,)
    assert scores.min() > 0.6


def test_grey_images_and_floats_between_0_and_1_are_taken(solved):
    images, labels = stripes(40)
    model = crossroads.ImageClassifier(**solved).fit(images.mean(axis=3) / 255, labels)
    assert model.predict(images[:4].mean(axis=3) / 255).shape == (4,)


def test_a_wrong_parameter_is_refused_by_fit():
    images, labels = stripes(40)
    with refused("out-of-range", RecipeError, field="epochs"):
        crossroads.ImageClassifier(epochs=0).fit(images, labels)


def test_it_is_not_fitted_before_fit():
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        crossroads.ImageClassifier().predict(np.zeros((1, 8, 8, 3), np.uint8))


def test_groups_may_have_names(solved):
    names = np.array(["north", "south", "east", "west"])[np.arange(20) // 5]
    images, labels = stripes(20)
    labels = np.tile(labels[:2], 10)  # each group holds both classes
    metrics = crossroads.ImageClassifier(**solved).fit(images, labels, groups=names).run_.metrics
    assert metrics["validation"]["n"] % 5 == 0
    assert metrics["validation"]["groups"] == metrics["validation"]["n"] // 5


@pytest.mark.parametrize("kind", ["pillow", "paths"])
def test_images_may_differ_in_size(solved, tmp_path, kind):
    images, labels = stripes(30)
    pictures = [Image.fromarray(image[: 16 - place % 3]) for place, image in enumerate(images)]
    paths = [tmp_path / f"{place}.png" for place in range(len(pictures))]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    given = pictures if kind == "pillow" else paths
    model = crossroads.ImageClassifier(**solved).fit(given, labels)
    assert not hasattr(model, "n_features_in_")
    np.testing.assert_array_equal(model.predict_proba(given), model.predict_proba([np.asarray(picture) for picture in pictures]))


def test_a_trained_run_is_kept_if_a_later_step_fails(monkeypatch):
    def failing(*_):
        raise ArtifactError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(_export, "save", failing)
        with pytest.raises(ArtifactError) as failed:
            crossroads.ImageClassifier(**TRAINED).fit(*stripes(60))
    (note,) = failed.value.__notes__
    out = Path(re.search(r"out='(.+?)'", note)[1])
    try:
        monkeypatch.setattr(keras.Model, "fit", lambda *_, **__: pytest.fail("it was trained again"))
        run = crossroads.fit(stripes(60), out=out, resume=True)
        assert crossroads.load(run).classes == ("level", "upright")
    finally:
        shutil.rmtree(out.parent)
