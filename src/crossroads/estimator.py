"""The whole job as a scikit-learn estimator on arrays of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
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
from crossroads.recipe import (
    AskedStrategy,
    Augmentation,
    ClassWeights,
    FeatureType,
    HeadName,
    OptimizerName,
    PoolingName,
    Precision,
    Recipe,
    ResizeMode,
    ScheduleName,
    UnfreezeName,
)
from crossroads.run.finish import Run
from crossroads.run.folder import RunFolder

Images = NDArray[Any] | Sequence[Picture]


class ImageClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier of images with the interface of scikit-learn; works with `clone`, `cross_val_score` and grid searches.

    Every parameter is a field of `crossroads.Recipe`, with the same meaning and the same default. With the default strategy,
    ``auto``, each `fit` measures what suits the images and takes about ten minutes, or the `budget`, in seconds or as ``5m``; a
    cross-validation fits once per fold. Name a strategy where that is too long.

    No test set is held out: as usual with scikit-learn the caller keeps one. The artifact is in a temporary folder that is removed
    with the estimator: `save` copies it, and a pickle holds it.

    Attributes:
        classes_: (k,), the labels as they were given, sorted.
        n_features_in_: Values per image; only set where `fit` received an array.
        predictor_: What predicts, loaded from the artifact.
        run_: The finished run with its validation scores.
    """

    def __init__(
        self,
        backbone: str | None = None,
        strategy: AskedStrategy = "auto",
        budget: float | str | None = None,
        weights: str | None = None,
        cut: str | None = None,
        freeze_to: str | None = None,
        pooling: PoolingName | None = None,
        head: HeadName | None = None,
        views: int | None = None,
        feature_type: FeatureType | None = None,
        precision: Precision | None = None,
        image_size: int | None = None,
        resize: ResizeMode | None = None,
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
        mixup: float | None = None,
        warm_up: float | None = None,
        layer_decay: float | None = None,
        l2_sp: float | None = None,
        ema: float | None = None,
        unfreeze: UnfreezeName | None = None,
        train_batchnorm: bool | None = None,
        early_stopping: int = 0,
    ) -> None:
        self.backbone = backbone
        self.strategy = strategy
        self.budget = budget
        self.weights = weights
        self.cut = cut
        self.freeze_to = freeze_to
        self.pooling = pooling
        self.head = head
        self.views = views
        self.feature_type = feature_type
        self.precision = precision
        self.image_size = image_size
        self.resize = resize
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
        self.mixup = mixup
        self.warm_up = warm_up
        self.layer_decay = layer_decay
        self.l2_sp = l2_sp
        self.ema = ema
        self.unfreeze = unfreeze
        self.train_batchnorm = train_batchnorm
        self.early_stopping = early_stopping

    def fit(self, X: Images, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Train on images.

        Args:
            X: An array (n, height, width), or with 1, 3 or 4 channels last; uint8, or floats in [0, 1]. Or a sequence of n arrays,
                Pillow images, paths or encoded files, which may differ in size.
            y: (n,), integers, strings, booleans or whole-numbered floats; an array or a column of a table.
            groups: (n,), images that must stay on one side of the validation split; None for none.

        Raises:
            CrossroadsError: A mistake that the user can fix. A note of the exception says where what was trained is kept.
            ValueError: `y` is no column of class labels, as scikit-learn puts it; also TypeError where it holds bytes.
        """
        require_usable_keras()
        labels = column_or_1d(y, warn=True)
        check_classification_targets(labels)
        classes, codes = np.unique(labels, return_inverse=True)
        # Scikit-learn sorts classes, the artifact has them in natural order and by name.
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
        elif hasattr(self, "n_features_in_"):  # of an earlier fit
            del self.n_features_in_
        return self

    def _trained(self, data: Dataset, folder: TemporaryFolder) -> Run:
        """The finished run. If training or a later step fails, what was trained is kept, and the error says where."""
        out = folder.path / "run"
        try:
            return fit(data, out=out, recipe=self._recipe())
        except BaseException as error:
            if RunFolder(out).unfinished:
                folder.keep()
                error.add_note(f"What was trained is kept: crossroads.fit(images, out={str(out)!r}, resume=True) finishes the run.")
            raise

    def predict_proba(self, X: Images) -> NDArray[np.float32]:
        """float32 (n, k), columns in the order of `classes_`."""
        check_is_fitted(self)
        images = read((X, np.zeros(len(X), np.int64)))
        probabilities: NDArray[np.float32] = self.predictor_.probabilities_of(images, strict=True)[0]
        return probabilities[:, self._columns]

    def predict(self, X: Images) -> NDArray[Any]:
        """(n,), the most probable label of each image, as it was given to `fit`."""
        check_is_fitted(self)
        labels: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return labels

    def save(self, folder: str | Path) -> Path:
        """Copies the finished, verified artifact to a folder that is new or empty, which is returned.

        Raises:
            ArtifactError: Something lies there, or it cannot be written.
        """
        check_is_fitted(self)
        return artifact.copy(self.run_.artifact, folder).folder

    def __getstate__(self) -> dict[str, Any]:
        """For pickling: the files of the artifact in place of what only this process has."""
        state: dict[str, Any] = dict(super().__getstate__())
        if state.pop("_folder", None) is None:
            return state
        run: Run = state.pop("run_")
        del state["predictor_"]
        files = {name: (run.artifact / name).read_bytes() for name in (*artifact.FILES, artifact.MANIFEST)}
        return {**state, "_pickled": (files, run.metrics)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The artifact is written to a temporary folder of its own, and verified."""
        held = state.pop("_pickled", None)
        super().__setstate__(state)
        if held is None:
            return
        files, metrics = held
        folder = TemporaryFolder()
        path = folder.path / "run"
        path.mkdir()
        for name in {*artifact.FILES, artifact.MANIFEST} & files.keys():
            (path / name).write_bytes(files[name])
        artifact.open_verified(path)
        self._hold(folder, Run(path, metrics))

    def _hold(self, folder: TemporaryFolder, run: Run) -> None:
        self.predictor_ = Predictor.load(run.artifact)
        self.run_ = run
        self._folder = folder  # goes when the estimator does

    def _recipe(self) -> Recipe:
        values = {field.name: getattr(self, field.name) for field in fields(Recipe) if hasattr(self, field.name)}
        return Recipe(**values, test_fraction=0.0)
