"""Defines the limits of the server."""

from __future__ import annotations

from dataclasses import dataclass

from crossroads.data.images import MAX_PIXELS
from crossroads.errors import RecipeError, option


@dataclass(frozen=True, slots=True)
class Settings:
    """The limits of the server, and who may use it.

    Attributes:
        token: What a request must present; None if anyone may use the server.
        origins: Origins of other web sites whose pages may use the server, such as ``https://example.org``.
        max_body: Largest body of a request, in bytes.
        max_files: Largest number of images in a request.
        max_pixels: Largest image, in pixels.
        max_waiting: Largest number of accepted images that have no answer yet. More are refused with status 503.
        max_held: Largest number of bytes of all bodies that are in memory at a time. More are refused with status 503.
        body_pause: Longest time in seconds between two parts of a body.
        body_seconds: Longest time in seconds for a whole body.
        header_seconds: Longest time in seconds from the opening of a connection to the end of the first request's headers.
        reload_seconds: Seconds between two checks for a new artifact.
        linger: Seconds that open connections may still send a request after the signal to stop.
    """

    token: str | None = None
    origins: tuple[str, ...] = ()
    max_body: int = 32 * 2**20
    max_files: int = 64
    max_pixels: int = 50_000_000
    max_waiting: int = 128
    max_held: int = 256 * 2**20
    body_pause: float = 15.0
    body_seconds: float = 120.0
    header_seconds: float = 20.0
    reload_seconds: float = 1.0
    linger: float = 0.5

    def __post_init__(self) -> None:
        for name in ("max_body", "max_files", "max_pixels", "max_waiting"):
            if getattr(self, name) < 1:
                raise RecipeError(
                    f"{option(name)} must be at least 1", code="out-of-range", field=name, received=getattr(self, name)
                )
        if self.max_pixels > MAX_PIXELS:
            raise RecipeError(
                f"{option('max_pixels')} must be at most {MAX_PIXELS:,}",
                code="out-of-range",
                field="max_pixels",
                received=self.max_pixels,
            )
        if self.max_files > self.max_waiting:
            raise RecipeError(
                f"{option('max_files')} must be at most {option('max_waiting')}",
                code="out-of-range",
                field="max_files",
                received=self.max_files,
                hint=f"the server holds {self.max_waiting} images at a time",
            )
