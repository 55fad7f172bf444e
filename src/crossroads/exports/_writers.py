"""Writes a classifier in the format of a runtime: the preprocessing is inside, and the class names are inside or beside it."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from crossroads import artifact
from crossroads._runtime.keras_setup import load_keras
from crossroads.errors import ArtifactError, missing_extra
from crossroads.inference import runtime, stored_model
from crossroads.networks.export import exports_here
from crossroads.run.export import keras_model

INPUT, OUTPUT = "images", "probabilities"
"""Names of the input and the output where the format lets us choose them."""

LABELS = "labels.txt"
"""The class names, one per line, for formats whose metadata cannot hold them."""


@dataclass(frozen=True)
class Classifier:
    """The classifier of an artifact.

    Attributes:
        manifest: Its manifest.
        backbone: The network that was passed to ``fit`` as an object; None for others.
    """

    manifest: artifact.Manifest
    backbone: Any = None

    @cached_property
    def keras_model(self) -> Any:
        """The Keras model."""
        load_keras()
        model, size = keras_model(self.manifest, self.backbone), self.manifest.resize.size
        model(np.zeros((1, size, size, 3), np.uint8), training=False)  # Keras exports only a model that was called
        return model

    @property
    def facts(self) -> Mapping[str, str]:
        """What a program needs to know, as texts: the class names in order, and how an image becomes the input."""
        resize = self.manifest.resize
        return {
            "classes": json.dumps(list(self.manifest.classes), ensure_ascii=False),
            "input": f"uint8 RGB, (n, {resize.size}, {resize.size}, 3)",
            "resize": json.dumps(
                {"size": resize.size, "mode": resize.mode, "filter": resize.filter, "crop_fraction": resize.crop_fraction}
            ),
        }

    def write_labels(self, path: Path) -> None:
        """Writes the class names, one per line."""
        names = [name.replace("\r", " ").replace("\n", " ") for name in self.manifest.classes]
        path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def write_openvino(classifier: Classifier, path: Path, *, half: bool = False) -> None:
    """Writes the artifact's graph with the class names as `rt_info` in ``crossroads``, ``classes``.

    `half` stores weights as float16.
    """
    model = stored_model(classifier.manifest.folder / artifact.GRAPH[0])
    for name, text in classifier.facts.items():
        model.set_rt_info(text, ["crossroads", name])
    runtime().save_model(model, str(path), compress_to_fp16=half)


def write_keras(classifier: Classifier, path: Path) -> None:
    """Writes a ``.keras`` file and the class names beside it."""
    classifier.keras_model.save(path)
    classifier.write_labels(path.with_name(f"{path.name}.{LABELS}"))


def write_saved_model(classifier: Classifier, path: Path) -> None:
    """Writes the folder of a SavedModel with an endpoint ``serve``, and the class names in it."""
    model = classifier.keras_model
    _require_tensorflow("a SavedModel")
    with _quiet():
        model.export(path, format="tf_saved_model", verbose=False)
    classifier.write_labels(path / LABELS)


def write_litert(classifier: Classifier, path: Path, *, half: bool = False) -> None:
    """Writes a ``.tflite`` file and the class names beside it. `half` stores weights as float16."""
    model = classifier.keras_model
    _require_tensorflow("LiteRT")
    import tensorflow

    options: dict[str, Any] = {}
    if half:
        options = {"optimizations": [tensorflow.lite.Optimize.DEFAULT], "target_spec": {"supported_types": [tensorflow.float16]}}
    with _quiet():
        model.export(path, format="litert", verbose=False, **options)
    classifier.write_labels(path.with_name(f"{path.name}.{LABELS}"))


def write_onnx(classifier: Classifier, path: Path) -> None:
    """Writes an ``.onnx`` file with the class names in its metadata."""
    try:
        import onnx
        import tf2onnx  # noqa: F401 - Keras imports it late, and its error names no command
    except ImportError as error:
        raise missing_extra("writing ONNX", str(error.name), "export") from error
    model = classifier.keras_model
    _require_tensorflow("ONNX")
    with _quiet():
        model.export(path, format="onnx", verbose=False)
    graph = onnx.load(path)
    _rename(graph.graph, graph.graph.input[0], INPUT)
    _rename(graph.graph, graph.graph.output[0], OUTPUT)
    onnx.helper.set_model_props(graph, dict(classifier.facts))
    onnx.checker.check_model(graph)
    onnx.save(graph, path)


def _rename(graph: Any, value: Any, name: str) -> None:
    """Gives an input or output of an ONNX graph another name."""
    old, value.name = value.name, name
    for node in graph.node:
        for names in (node.input, node.output):
            for position, each in enumerate(names):
                if each == old:
                    names[position] = name


def _require_tensorflow(format_name: str) -> None:
    if not exports_here():
        raise ArtifactError(
            f"writing {format_name} needs Keras on TensorFlow",
            code="export-needs-tensorflow",
            received="another backend, or python -OO",
            hint="set KERAS_BACKEND=tensorflow",
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the standard output for the result, and hides warnings about the insides of the converters."""
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
