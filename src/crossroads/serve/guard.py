"""Wraps the application: checks the token, adds headers for security, and counts requests."""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crossroads.serve.metrics import Metrics
from crossroads.serve.refusals import error_facts, json_bytes

OPEN_PATHS = ("/health", "/ready")
"""Paths that need no token, since orchestrators ask for them."""

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_UNAUTHORIZED = json_bytes(
    {"error": error_facts("unauthorized", "the request needs the token of this server", "send Authorization: Bearer TOKEN")}
)


class Guard:
    """An ASGI application around another one.

    Args:
        app: The other one.
        token: What requests must present, as ``Authorization: Bearer TOKEN``, or as the password of HTTP Basic authentication, for
            which browsers ask. None if anyone may use the server.
        metrics: Receives each request.
    """

    def __init__(self, app: ASGIApp, token: str | None, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics
        self._token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message.setdefault("headers", [])
                present = {name for name, _ in headers}
                headers += [header for header in (*_HEADERS, _POLICY) if header[0] not in present]
            await send(message)

        try:
            if self._token is None or scope["path"] in OPEN_PATHS or self._presents_token(scope, self._token):
                await self._app(scope, receive, send_with_headers)
            else:
                await _refuse(send_with_headers)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self._metrics.request(path, status, time.perf_counter() - started)

    @staticmethod
    def _presents_token(scope: Scope, token: bytes) -> bool:
        kind, _, value = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
        value = value.strip()
        if kind.lower() == b"basic":
            with suppress(binascii.Error):
                return hmac.compare_digest(base64.b64decode(value, validate=True).partition(b":")[2], token)
        return kind.lower() == b"bearer" and hmac.compare_digest(value, token)


async def _refuse(send: Send) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(_UNAUTHORIZED)).encode()),
        (b"www-authenticate", b'Basic realm="crossroads", Bearer'),
    ]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": _UNAUTHORIZED})
