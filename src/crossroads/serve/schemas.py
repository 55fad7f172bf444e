"""Describes the bodies of the interface, for its documentation."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Error(BaseModel):
    """An error."""

    code: str = Field(description="Name of the error in kebab-case. It stays the same when the message changes.")
    message: str = Field(description="What went wrong.")
    hint: str | None = Field(None, description="What to do about it.")


class ErrorBody(BaseModel):
    """The body of every answer that is not a success."""

    error: Error


class Label(BaseModel):
    """One class and its probability."""

    label: str
    probability: float


class ImageAnswer(BaseModel):
    """The answer for one image: either its labels, most probable first, or an error."""

    name: str = Field(description="File name that the client gave, or `image`.")
    labels: list[Label] | None = None
    error: Error | None = None


class Predictions(BaseModel):
    """The answer for the images of a request, in their order."""

    model: str
    predictions: list[ImageAnswer]


class TrainingImage(BaseModel):
    """A training image that resembles the image of the request."""

    name: str
    label: str
    similarity: float = Field(description="Cosine of the angle between the features of both images, at most 1.")
    thumbnail: str | None = Field(description="A small picture as a data URL, if the artifact keeps them.")


class Explanation(BaseModel):
    """The explanation of one prediction."""

    model: str
    label: str
    method: str = Field(description="How the heat map was computed: `cam`, `reciprocam` or `occlusion`.")
    heat_map: str = Field(description="The image as the network sees it, under the heat map: a JPEG file as a data URL.")
    neighbours: list[TrainingImage] = Field(description="The most similar training images, most similar first.")


class ModelFacts(BaseModel):
    """One model."""

    name: str
    classes: list[str]
    image_size: int
    resize: dict[str, Any] = Field(description="How images are resized: `mode`, `filter` and `crop_fraction`.")
    backbone: str
    strategy: str
    artifact: str = Field(description="Digest of the weights. It changes when a new artifact is served.")
    accuracy: dict[str, Any] | None = Field(None, description="Measured accuracy, its 95 % interval and the number of images.")
    report: bool = Field(description="Whether the page of the server links to a report of the artifact.")
    new_artifact_refused: bool = Field(description="Whether the folder holds a newer artifact that is damaged.")


class ModelList(BaseModel):
    """All models. A request that names none uses the first."""

    models: list[ModelFacts]


class Status(BaseModel):
    """The state of the server."""

    status: str


_REASONS = {
    400: "The request is malformed, or holds no image.",
    401: "The token is missing or wrong.",
    404: "The model or the label is unknown.",
    408: "The body arrived too slowly.",
    413: "The body is too large, or holds too many files.",
    415: "The body has an unsupported type.",
    422: "A parameter is invalid, or no image can be read.",
    503: "The server is busy; `Retry-After` tells when to try again.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns the documentation of answers that are errors."""
    return {status: {"model": ErrorBody, "description": _REASONS[status]} for status in statuses}


BINARY = {"schema": {"type": "string", "format": "binary"}}


def images_body(most: int | None = None) -> dict[str, Any]:
    """Returns the documentation of a body with images: one image file, or a form with `most` of them, None for any number."""
    files: dict[str, Any] = {"type": "array", "items": BINARY["schema"], "minItems": 1}
    if most is not None:
        files["maxItems"] = most
    form = {"type": "object", "properties": {"images": files}, "required": ["images"], "additionalProperties": False}
    kinds = {"multipart/form-data": {"schema": form}, "image/*": BINARY, "application/octet-stream": BINARY}
    return {"requestBody": {"required": True, "description": "An image file, or a form with image files.", "content": kinds}}
