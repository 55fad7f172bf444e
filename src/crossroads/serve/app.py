"""Defines the routes of the server and its answer to every error."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from crossroads import __version__
from crossroads.errors import ImageRefused, did_you_mean
from crossroads.serve import page
from crossroads.serve.batches import Answer, Batches
from crossroads.serve.bodies import Held, Upload, read_images
from crossroads.serve.explanations import Explanations
from crossroads.serve.guard import Guard
from crossroads.serve.metrics import CONTENT_TYPE, Metrics
from crossroads.serve.models import Model, Models
from crossroads.serve.refusals import ErrorFacts, Refused, error_facts, facts_of, json_bytes
from crossroads.serve.schemas import Explanation, ModelList, Predictions, Status, errors, images_body
from crossroads.serve.settings import Settings

JSON = "application/json"
ModelName = Annotated[str | None, Query(description="Name of the model. The first is the default.", max_length=64)]
Top = Annotated[int, Query(description="Number of classes per image.", ge=1, le=10_000)]

_log = logging.getLogger("crossroads.serve")


class Service:
    """Everything that the routes share.

    Attributes:
        draining: Whether the server has received the signal to stop. It then finishes what it accepted.
    """

    def __init__(self, models: Models, settings: Settings) -> None:
        self.models, self.settings = models, settings
        self.metrics = Metrics()
        self.batches = Batches(models.default.loaded.predictor.graph.parallel, settings, self.metrics)
        self.metrics.waiting_from(lambda: self.batches.pending)
        self.explanations = Explanations(settings.max_pixels)
        self.held = Held(settings.max_held)
        self.draining = False

    async def watch_folders(self) -> None:
        """Checks for new artifacts until it is cancelled."""
        while True:
            await asyncio.sleep(self.settings.reload_seconds)
            for model in self.models:
                try:
                    await asyncio.to_thread(model.check, self.metrics)
                except Exception:  # the next check may succeed
                    _log.exception("%s: the check for a new artifact failed", model.name)


def create_app(models: Iterable[Model], settings: Settings | None = None) -> FastAPI:
    """Returns the application that serves models. `app.state.service` is its `Service`."""
    service = Service(Models(models), settings or Settings())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(service.watch_folders())
        yield
        watching.cancel()
        await asyncio.to_thread(service.batches.close)
        await asyncio.to_thread(service.explanations.close)

    app = FastAPI(
        title="Crossroads",
        version=__version__,
        description="Classifies images.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    app.state.service = service
    _add_predict(app, service)
    _add_explain(app, service)
    _add_status(app, service)
    page.add_pages(app, service.models, service.settings)
    _add_error_answers(app)
    app.add_middleware(Guard, token=service.settings.token, metrics=service.metrics)
    if service.settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.settings.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
            expose_headers=["retry-after"],
        )
    return app


def _add_predict(app: FastAPI, service: Service) -> None:
    refusals = errors(400, 401, 404, 408, 413, 415, 422, 503)

    @app.post("/v1/predict", response_model=Predictions, responses=refusals, openapi_extra=images_body(), tags=["predictions"])
    async def predict(request: Request, top: Top = 5, model: ModelName = None) -> Response:
        """Predicts the most probable classes of images.

        The body is one image file, or a form with any number of image files. The answer lists the images in the same order. Where
        an image cannot be read, it has an error in place of labels. If no image can be read, the status is 422.
        """
        require_known_parameters(request, ("top", "model"))
        chosen = service.models.named(model)
        service.batches.require_room()
        with service.held.request() as share:
            uploads = await read_images(request, service.settings, share)
            images = [upload.data for upload in uploads]
            answers = await service.batches.answer(chosen.loaded.predictor, chosen.name, images, top)
        refused = sum(isinstance(answer, ImageRefused) for answer in answers)
        service.metrics.images(chosen.name, len(answers) - refused, refused)
        if refused == len(answers) and isinstance(answers[0], ImageRefused):
            raise answers[0]
        return Response(json_bytes(_predictions(chosen.name, uploads, answers)), media_type=JSON)


def _add_explain(app: FastAPI, service: Service) -> None:
    refusals = errors(400, 401, 404, 408, 413, 415, 422, 503)

    @app.post("/v1/explain", response_model=Explanation, responses=refusals, openapi_extra=images_body(1), tags=["predictions"])
    async def explain(
        request: Request,
        label: Annotated[str | None, Query(description="Class to explain. The most probable is the default.")] = None,
        near: Annotated[int, Query(description="Number of training images to find.", ge=0, le=50)] = 5,
        model: ModelName = None,
    ) -> Response:
        """Explains the prediction of one image.

        The answer is a heat map, which is bright where the image speaks for the class, and the training images whose features are
        most similar, if the artifact keeps them.
        """
        require_known_parameters(request, ("label", "near", "model"))
        chosen = service.models.named(model)
        with service.held.request() as share:
            uploads = await read_images(request, service.settings, share)
            if len(uploads) > 1:
                raise Refused(400, "several-images", "only one image can be explained at a time", "send several requests")
            predictor = chosen.loaded.predictor
            found = await service.explanations.explain(chosen.name, predictor, uploads[0].data, label, near)
        return Response(json_bytes({"model": chosen.name, **found}), media_type=JSON)


def _predictions(model: str, uploads: Sequence[Upload], answers: Sequence[Answer]) -> dict[str, Any]:
    return {
        "model": model,
        "predictions": [
            {"name": upload.name, "error": facts_of(answer)}
            if isinstance(answer, ImageRefused)
            else {"name": upload.name, "labels": [ranked._asdict() for ranked in answer]}
            for upload, answer in zip(uploads, answers, strict=True)
        ],
    }


def require_known_parameters(request: Request, known: Sequence[str]) -> None:
    """Raises `Refused` with status 400 if the address has a parameter that would do nothing."""
    for name in request.query_params:
        if name not in known:
            raise Refused(400, "unknown-parameter", f"the parameter {name[:80]!r} is unknown", did_you_mean(name[:80], known))


def _add_status(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", response_model=ModelList, responses=errors(401), tags=["predictions"])
    async def models() -> Response:
        """Lists the models with their classes and their measured accuracy."""
        return Response(json_bytes({"models": [model.facts() for model in service.models]}), media_type=JSON)

    @app.head("/health", include_in_schema=False)
    @app.get("/health", response_model=Status, tags=["operation"])
    async def health() -> Response:
        """Returns whether the server runs."""
        return Response(b'{"status":"ok"}', media_type=JSON)

    @app.head("/ready", include_in_schema=False)
    @app.get("/ready", response_model=Status, responses=errors(503), tags=["operation"])
    async def ready() -> Response:
        """Returns whether the server takes new requests. It does not after the signal to stop."""
        if service.draining:
            raise Refused(503, "stopping", "the server stops", "use another server", retry_after="1")
        return Response(b'{"status":"ready"}', media_type=JSON)

    @app.get("/metrics", responses={200: {"content": {"text/plain": {}}}, **errors(401)}, tags=["operation"])
    async def metrics() -> Response:
        """Returns figures in the form of Prometheus."""
        return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE})


def _error(status: int, facts: ErrorFacts, headers: dict[str, str] | None = None) -> Response:
    return Response(json_bytes({"error": facts}), status, headers, JSON)


def _add_error_answers(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return _error(error.status, error.facts, error.headers)

    @app.exception_handler(ImageRefused)
    async def unreadable(_: Request, error: ImageRefused) -> Response:
        return _error(422, facts_of(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        name = str(first["loc"][-1])
        return _error(422, error_facts("invalid-parameter", f"the parameter {name!r} is invalid: {first['msg']}"))

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> Response:
        code = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "bad-request")
        message = {404: "there is nothing at this address", 405: "this address does not accept this method"}
        facts = error_facts(code, message.get(error.status_code, "the request is malformed"), "see /docs")
        return _error(error.status_code, facts, dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def fault(_: Request, __: Exception) -> Response:
        return _error(500, error_facts("internal", "the server failed to answer this request", "see the log of the server"))
