import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

import crossroads
from crossroads.errors import RecipeError
from pictures import stripes

pytestmark = pytest.mark.core
QUICK = {"epochs": 6, "batch_size": 16, "image_size": 16, "validation": 0.2}


@pytest.fixture(scope="module")
def fitted():
    images, labels = stripes(60)
    return crossroads.ImageClassifier(**QUICK).fit(images, labels)


def test_it_predicts_labels_as_they_were_given(fitted):
    images, labels = stripes(20, seed=5)
    assert fitted.score(images, labels) >= 0.9
    assert fitted.classes_.tolist() == ["level", "upright"]
    assert set(fitted.predict(images)) <= set(labels)


def test_probabilities_are_in_the_order_of_classes(fitted):
    images, _ = stripes(20, seed=5)
    found = fitted.predict_proba(images)
    assert found.shape == (20, 2)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert (fitted.classes_[found.argmax(axis=1)] == fitted.predict(images)).all()


def test_classes_are_sorted_as_scikit_learn_does_whatever_their_natural_order():
    images, labels = stripes(60, classes=("b", "a"))
    model = crossroads.ImageClassifier(**QUICK).fit(images, np.where(labels == "a", 10, -2))
    assert model.classes_.tolist() == [-2, 10]
    assert (model.predict(images) == np.where(labels == "a", 10, -2)).mean() > 0.9


def test_clone_and_cross_validation_work_on_arrays():
    model = clone(crossroads.ImageClassifier(**QUICK))
    assert model.get_params()["epochs"] == 6
    images, labels = stripes(60)
    scores = cross_val_score(model, images, labels, cv=2)
    assert scores.shape == (2,)
    assert scores.min() > 0.6


def test_grey_images_and_floats_between_0_and_1_are_taken():
    images, labels = stripes(40)
    model = crossroads.ImageClassifier(**QUICK).fit(images.mean(axis=3) / 255, labels)
    assert model.predict(images[:4].mean(axis=3) / 255).shape == (4,)


def test_a_wrong_parameter_is_told_when_fitted():
    images, labels = stripes(40)
    with pytest.raises(RecipeError, match="epochs"):
        crossroads.ImageClassifier(epochs=0).fit(images, labels)


def test_it_is_not_fitted_before_fit():
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        crossroads.ImageClassifier().predict(np.zeros((1, 8, 8, 3), np.uint8))
