"""Explains predictions: a heat map of an image, and the training images that it resembles most."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from crossroads.errors import ArtifactError, did_you_mean
from crossroads.explain import Explainer, Nearest, Neighbour, overlay
from crossroads.predictor import Predictor
from crossroads.serve.decoding import decoded
from crossroads.serve.refusals import Refused

MOST_WAITING = 8
"""Explanations that may wait. One takes as long as many predictions, so they have one thread and a queue of their own."""

_log = logging.getLogger("crossroads.serve")


class _Tools(NamedTuple):
    explainer: Explainer
    nearest: Nearest | None


class Explanations:
    """Explains predictions, one at a time. What it needs of a model is made for the first explanation."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="crossroads-explain")
        self._waiting = 0
        self._tools: dict[str, _Tools] = {}

    async def explain(self, model: str, predictor: Predictor, image: bytes, label: str | None, near: int) -> dict[str, Any]:
        """Returns the explanation of one image.

        Args:
            model: Name of the model.
            predictor: Its classifier.
            image: An image file.
            label: The class to explain; None for the most probable one.
            near: Number of training images to find; there are none if the artifact keeps none.

        Raises:
            Refused: The class is unknown, or too many explanations wait.
            ImageRefused: The image cannot be read.
        """
        if label is not None and label not in predictor.classes:
            raise Refused(404, "unknown-label", "the model has no class of this name", did_you_mean(label, predictor.classes))
        if self._waiting == MOST_WAITING:
            raise Refused(503, "busy", "too many images wait for an explanation", "try again later", retry_after="1")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._explained, model, predictor, image, label, near)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Ends the thread."""
        self._thread.shutdown()

    def _explained(self, model: str, predictor: Predictor, image: bytes, label: str | None, near: int) -> dict[str, Any]:
        pixels = decoded(image, predictor.manifest.resize, self._max_pixels)
        batch = pixels[None]
        number = int(predictor.probabilities(batch)[0].argmax()) if label is None else predictor.classes.index(label)
        tools = self._tools_of(model, predictor)
        heat = tools.explainer.maps(batch, np.array([number]))[0]
        found = tools.nearest(batch, near)[0] if tools.nearest is not None and near else ()
        return {
            "label": predictor.classes[number],
            "method": tools.explainer.method,
            "heat_map": _data_url(_jpeg(overlay(pixels, heat))),
            "neighbours": [_facts(neighbour) for neighbour in found],
        }

    def _tools_of(self, model: str, predictor: Predictor) -> _Tools:
        tools = self._tools.get(model)
        if tools is None or tools.explainer.predictor is not predictor:  # a new artifact has replaced the old one
            tools = self._tools[model] = _Tools(Explainer(predictor), _nearest(predictor))
        return tools


def _nearest(predictor: Predictor) -> Nearest | None:
    try:
        return Nearest(predictor)
    except ArtifactError as error:
        if error.code != "no-neighbours":
            _log.warning("no nearest training images: %s", error)
        return None


def _facts(neighbour: Neighbour) -> dict[str, Any]:
    picture = None if neighbour.thumbnail is None else _data_url(neighbour.thumbnail)
    return {"name": neighbour.name, "label": neighbour.label, "similarity": neighbour.similarity, "thumbnail": picture}


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def _data_url(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
