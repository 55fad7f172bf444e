"""Reads the images of a request within limits, while they arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from crossroads.files.text import printable
from crossroads.serve.refusals import Refused
from crossroads.serve.settings import Settings

MULTIPART = "multipart/form-data"
OCTETS = "application/octet-stream"


class Upload(NamedTuple):
    """One image file of a request, and the name that the client gave it."""

    name: str
    data: bytes


class Held:
    """Counts the bytes of all bodies in memory. The event loop is its only user."""

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0

    @contextmanager
    def request(self) -> Iterator[_Share]:
        """Counts the bytes of one request until the context ends."""
        share = _Share(self)
        try:
            yield share
        finally:
            self.bytes -= share.bytes


class _Share:
    """The bytes of one request."""

    def __init__(self, held: Held) -> None:
        self._held, self.bytes = held, 0

    def add(self, count: int) -> None:
        if self._held.bytes + count > self._held.limit:
            raise Refused(503, "busy", "the server holds too many bytes of other requests", "try again later", retry_after="1")
        self._held.bytes += count
        self.bytes += count


async def read_images(request: Request, settings: Settings, share: _Share) -> list[Upload]:
    """Returns the images of a request, at least one.

    Raises:
        Refused: The body has another type, is too large, too slow, malformed or empty, or has too many files.
    """
    kind, options = parse_options_header(request.headers.get("content-type", OCTETS))
    kind_of_body = kind.decode("latin-1").lower()
    is_form = kind_of_body == MULTIPART
    if not is_form and kind_of_body != OCTETS and not kind_of_body.startswith("image/"):
        raise Refused(
            415,
            "unsupported-body",
            f"the body must be {MULTIPART}, image/* or {OCTETS}",
            "send a form with image files, as curl -F images=@photo.jpg does",
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "encoded-body", "the body must have no content encoding", "send the image file as it is")
    stated = request.headers.get("content-length", "")
    if stated.isascii() and stated.isdigit() and int(stated) > settings.max_body:
        raise _too_large(settings)
    uploads = await (_form(request, options, settings, share) if is_form else _whole(request, settings, share))
    if not uploads:
        raise Refused(400, "no-image", "the request holds no image", "send an image file as the body, or as a file of a form")
    return uploads


async def _receive(request: Request, settings: Settings, share: _Share, take: Callable[[bytes], object]) -> None:
    """Passes the parts of the body to `take` as they arrive."""
    now = asyncio.get_running_loop().time
    last = now() + settings.body_seconds
    size = 0
    try:
        async with asyncio.timeout(settings.body_pause) as limit:
            async for part in request.stream():
                size += len(part)
                if size > settings.max_body:
                    raise _too_large(settings)
                share.add(len(part))
                take(part)
                limit.reschedule(min(last, now() + settings.body_pause))
    except TimeoutError:
        raise Refused(
            408, "slow-body", "the body arrived too slowly", "use a faster connection or a smaller image", connection="close"
        ) from None
    except ClientDisconnect:
        raise Refused(400, "incomplete-body", "the connection was closed before the end of the body") from None


def _too_large(settings: Settings) -> Refused:
    return Refused(
        413,
        "body-too-large",
        f"the body may have at most {settings.max_body:,} bytes",
        "send a smaller image, or fewer images",
        connection="close",
    )


async def _whole(request: Request, settings: Settings, share: _Share) -> list[Upload]:
    parts: list[bytes] = []
    await _receive(request, settings, share, parts.append)
    data = b"".join(parts)
    return [Upload("image", data)] if data else []


async def _form(request: Request, options: dict[bytes, bytes], settings: Settings, share: _Share) -> list[Upload]:
    form = _Form(options.get(b"boundary", b""), settings.max_files)
    try:
        await _receive(request, settings, share, form.parser.write)
        form.parser.finalize()
    except FormParserError:
        raise _malformed() from None
    if not form.ended:
        raise _malformed()
    return form.uploads


class _Form:
    """Collects the files of a form. The library's own collector makes three objects per file, which takes twice as long."""

    def __init__(self, boundary: bytes, max_files: int) -> None:
        if not boundary:
            raise _malformed()
        self.uploads: list[Upload] = []
        self.ended = False
        self._max_files = max_files
        self._name = self._header = b""
        self._value: list[bytes] = []
        self._headers: dict[bytes, bytes] = {}
        self._data: list[bytes] = []
        self.parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._headers.clear,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value.append(data[start:end])

    def _on_header_end(self) -> None:
        self._headers[self._header.lower()] = b"".join(self._value)
        self._header = b""
        self._value.clear()

    def _on_headers_finished(self) -> None:
        if self._headers.get(b"content-transfer-encoding", b"binary").strip().lower() not in (b"binary", b"8bit", b"7bit"):
            raise _malformed()
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        if b"filename" not in options:
            name = printable(options.get(b"name", b"").decode("utf-8", "replace"))
            raise Refused(
                400,
                "not-a-file",
                f"the field {name[:80]!r} of the form is not a file",
                "give it a file name, or put options into the address: ?top=3",
            )
        if len(self.uploads) == self._max_files:
            raise Refused(413, "too-many-files", f"a request may have at most {self._max_files} images", "send several requests")
        self._name = options[b"filename"]

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def _on_part_end(self) -> None:
        name = printable(self._name.decode("utf-8", "replace")) or "image"
        self.uploads.append(Upload(name, b"".join(self._data)))
        self._data = []

    def _on_end(self) -> None:
        self.ended = True


def _malformed() -> Refused:
    return Refused(400, "malformed-form", "the form is malformed or incomplete", "let a library write the body of the form")
