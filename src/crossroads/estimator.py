"""The whole job as a scikit-learn estimator on arrays of images."""

from __future__ import annotations

import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from crossroads.data.readers import read
from crossroads.predictor import Predictor
from crossroads.recipe import Augmentation, ClassWeights, OptimizerName, Recipe, ScheduleName, StrategyName
from crossroads.workflow import fit


class ImageClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier of images with the interface of scikit-learn; works with `clone`, `cross_val_score` and grid searches.

    Every parameter is a field of `crossroads.Recipe` and means what it means there, but for `out`. No test set is held out: in
    scikit-learn's way the caller keeps one.

    Args:
        out: Where to leave the artifact; None for a temporary folder that goes with the estimator.

    Attributes:
        classes_: (k,), the labels as they were given, sorted.
        predictor_: What predicts, loaded from the artifact.
        run_: The finished run with its validation scores.
    """

    def __init__(
        self,
        backbone: str | None = None,
        strategy: StrategyName = "from-scratch",
        image_size: int | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        validation: float = 0.1,
        seed: int = 0,
        augment: bool | None = None,
        augmentation: Augmentation | None = None,
        optimizer: OptimizerName | None = None,
        learning_rate: float | None = None,
        schedule: ScheduleName | None = None,
        weight_decay: float | None = None,
        label_smoothing: float | None = None,
        class_weights: ClassWeights = "none",
        early_stopping: int = 0,
        out: str | Path | None = None,
    ) -> None:
        self.backbone = backbone
        self.strategy = strategy
        self.image_size = image_size
        self.epochs = epochs
        self.batch_size = batch_size
        self.validation = validation
        self.seed = seed
        self.augment = augment
        self.augmentation = augmentation
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.weight_decay = weight_decay
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights
        self.early_stopping = early_stopping
        self.out = out

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Train on images.

        Args:
            X: (n, height, width), or with 1, 3 or 4 channels last; uint8, or floats in [0, 1].
            y: (n,), integers or strings.
            groups: (n,), images that must stay on one side of the validation split; None for none.

        Raises:
            CrossroadsError: A mistake that the user can mend.
        """
        labels = np.asarray(y)
        data = read((X, labels))
        if groups is not None:
            data = replace(data, groups=np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64))
        if self.out is None:
            self._folder = tempfile.TemporaryDirectory(prefix="crossroads-")  # goes when the estimator does
            out = Path(self._folder.name) / "run"
        else:
            out = Path(self.out)
        self.run_ = fit(data, out=out, recipe=self._recipe())
        self.predictor_ = Predictor.load(self.run_.artifact)
        self.classes_ = np.unique(labels)
        self.n_features_in_ = int(np.prod(np.shape(X)[1:]))
        # The artifact keeps natural order, scikit-learn sorted order.
        self._columns = [self.predictor_.classes.index(str(label)) for label in self.classes_.tolist()]
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float32]:
        """float32 (n, k), columns in the order of `classes_`."""
        check_is_fitted(self)
        images = read((X, np.zeros(len(np.asarray(X)), np.int64)))
        probabilities: NDArray[np.float32] = self.predictor_.probabilities_of(images, strict=True)[0]
        return probabilities[:, self._columns]

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """(n,), the most probable label of each image, as it was given to `fit`."""
        check_is_fitted(self)
        labels: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return labels

    def _recipe(self) -> Recipe:
        values = {field.name: getattr(self, field.name) for field in fields(Recipe) if hasattr(self, field.name)}
        return Recipe(**values, test_share=0.0)
