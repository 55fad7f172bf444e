"""Provides training and prediction as a scikit-learn estimator on arrays of images."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d

from crossroads import artifact
from crossroads._runtime.keras_setup import require_usable_keras
from crossroads._runtime.machine import TemporaryFolder
from crossroads.api import fit
from crossroads.data.dataset import Dataset, encode_groups
from crossroads.data.labels import encode
from crossroads.data.pictures import Picture
from crossroads.data.readers import read
from crossroads.predictor import Predictor
from crossroads.recipe import Recipe
from crossroads.run.finish import Run
from crossroads.run.folder import RunFolder

Images = NDArray[Any] | Sequence[Picture]

_OF_FILES = ("data", "test", "class_names", "test_fraction", "strict")
"""Fields of the recipe that do not apply to arrays in memory or to a test set that the caller keeps."""


def _signature() -> inspect.Signature:
    """Returns the signature of the constructor: `self`, and the fields of the recipe with their types and defaults."""
    known = inspect.signature(Recipe).parameters.values()
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return inspect.Signature([own, *(parameter for parameter in known if parameter.name not in _OF_FILES)])


_SIGNATURE = _signature()
_PARAMETERS = list(_SIGNATURE.parameters)[1:]


class ImageClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """An image classifier with the interface of scikit-learn. It works with `clone`, `cross_val_score` and grid searches.

    Every parameter is a field of `crossroads.Recipe`, with the same meaning and the same default. With the default strategy,
    ``auto``, each `fit` measures which strategy suits the images. This takes about ten minutes, or the `budget` (in seconds, or as
    ``5m``). A cross-validation fits once per fold, so name a strategy if that takes too long.

    No test set is held out. As usual with scikit-learn, the caller keeps one. The artifact is in a temporary folder that is removed
    with the estimator. `save` copies the artifact, and a pickle contains it.

    Attributes:
        classes_: (k,), the labels as they were given, sorted.
        n_features_in_: Values per image; only set if `fit` received an array.
        predictor_: The predictor, loaded from the artifact.
        run_: The finished run with its validation scores.
    """

    def __init__(self, *values: Any, **parameters: Any) -> None:
        bound = _SIGNATURE.bind(self, *values, **parameters)
        bound.apply_defaults()
        for name in _PARAMETERS:
            setattr(self, name, bound.arguments[name])

    # Scikit-learn reads the names of the parameters from the signature, for `clone`, `get_params` and grid searches.
    __init__.__signature__ = _SIGNATURE  # type: ignore[attr-defined]

    def fit(self, X: Images, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Trains on images.

        Args:
            X: An array (n, height, width) or (n, height, width, 1, 3 or 4), of uint8 or of floats in [0, 1]; or a sequence of n
                arrays, Pillow images, paths or encoded files, which may differ in size.
            y: (n,), integers, strings, booleans or whole-numbered floats; an array or a column of a table.
            groups: (n,), the group of each image, which stays in one split. None if the images are independent.

        Raises:
            CrossroadsError: A mistake that the user can fix. If training had begun, a note of the exception names the folder of the
                unfinished run.
            ValueError: `y` is not a column of class labels. The message is scikit-learn's.
            TypeError: `y` holds bytes.
        """
        require_usable_keras()
        labels = column_or_1d(y, warn=True)
        check_classification_targets(labels)
        classes, codes = np.unique(labels, return_inverse=True)
        # Scikit-learn sorts the classes. The artifact has their names in natural order.
        columns, names = encode(classes, what="y")
        data = replace(read((X, columns[codes])), classes=names)
        if groups is not None:
            data = replace(data, groups=encode_groups(groups, len(data)))
        folder = TemporaryFolder()
        run = self._trained(data, folder)
        self._hold(folder, run)
        self.classes_ = classes
        self._columns = columns
        if isinstance(X, np.ndarray):
            self.n_features_in_ = int(np.prod(X.shape[1:]))
        elif hasattr(self, "n_features_in_"):  # from an earlier fit
            del self.n_features_in_
        return self

    def _trained(self, data: Dataset, folder: TemporaryFolder) -> Run:
        """Returns the finished run. If a step fails after training, the unfinished run is kept, and the error names its folder."""
        out = folder.path / "run"
        try:
            return fit(data, out=out, recipe=self._recipe(), report=False)
        except BaseException as error:
            if RunFolder(out).unfinished:
                folder.keep()
                error.add_note(f"The unfinished run is kept: crossroads.fit(images, out={str(out)!r}, resume=True) finishes it.")
            raise

    def predict_proba(self, X: Images) -> NDArray[np.float32]:
        """Returns float32 (n, k), with columns in the order of `classes_`."""
        check_is_fitted(self)
        images = read((X, np.zeros(len(X), np.int64)))
        probabilities: NDArray[np.float32] = self.predictor_.probabilities_of(images, strict=True)[0]
        return probabilities[:, self._columns]

    def predict(self, X: Images) -> NDArray[Any]:
        """Returns (n,), the most probable label of each image, as it was given to `fit`."""
        check_is_fitted(self)
        labels: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return labels

    def save(self, folder: str | Path) -> Path:
        """Copies the verified artifact to a new or empty folder, and returns that folder.

        Raises:
            ArtifactError: The folder is not empty or not writable.
        """
        check_is_fitted(self)
        return artifact.copy(self.run_.artifact, folder).folder

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state for a pickle. It contains the files of the artifact instead of objects of this process."""
        state: dict[str, Any] = dict(super().__getstate__())
        if state.pop("_folder", None) is None:
            return state
        run: Run = state.pop("run_")
        del state["predictor_"]
        files = {
            name: (run.artifact / name).read_bytes()
            for name in (*artifact.open_verified(run.artifact, only=()).names, artifact.MANIFEST)
        }
        return {**state, "_pickled": (files, run.metrics)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Writes the artifact to a temporary folder, and verifies it."""
        pickled = state.pop("_pickled", None)
        super().__setstate__(state)
        if pickled is None:
            return
        files, metrics = pickled
        folder = TemporaryFolder()
        path = folder.path / "run"
        path.mkdir()
        for name in {*artifact.FILES, *artifact.OPTIONAL, artifact.MANIFEST} & files.keys():
            (path / name).write_bytes(files[name])
        artifact.open_verified(path)
        self._hold(folder, Run(path, metrics))

    def _hold(self, folder: TemporaryFolder, run: Run) -> None:
        self.predictor_ = Predictor.load(run.artifact)
        self.run_ = run
        self._folder = folder  # removed with the estimator

    def _recipe(self) -> Recipe:
        return Recipe(**{name: getattr(self, name) for name in _PARAMETERS}, test_fraction=0.0)
