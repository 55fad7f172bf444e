"""Runs the application on uvicorn: the socket, the signals, connections that send nothing, and the end."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from crossroads.errors import RecipeError, option
from crossroads.serve.app import Service, create_app
from crossroads.serve.models import Model
from crossroads.serve.refusals import error_facts, json_bytes
from crossroads.serve.settings import Settings

BACKLOG = 2048
KEEP_ALIVE = 75
"""Seconds that a connection stays open without a request. Proxies and load balancers close theirs after 60, and must be first."""

_MALFORMED = json_bytes({"error": error_facts("malformed-request", "the request is not valid HTTP")})
_log = logging.getLogger("crossroads.serve")


class _Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """A connection whose answer to malformed HTTP is JSON, too."""

    def send_400_response(self, msg: str) -> None:
        """Answers and closes the connection."""
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(_MALFORMED)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + _MALFORMED)
        self.transport.close()


class Server(uvicorn.Server):
    """A server that finishes what it accepted when it gets SIGTERM or SIGINT, and then returns."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._unused_since: dict[Any, float] = {}

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stops at the first signal, and at once at the second."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Is called ten times a second."""
        if counter % 10 == 0:
            self._close_unused(asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    def _close_unused(self, now: float) -> None:
        """Closes connections on which no request has begun for long. Between two requests, uvicorn closes them by itself."""
        open_ones: set[Any] = set(self.server_state.connections)
        unused = {connection for connection in open_ones if connection.cycle is None}
        self._unused_since = {connection: self._unused_since.get(connection, now) for connection in unused}
        for connection, since in self._unused_since.items():
            if now - since > self._service.settings.header_seconds:
                connection.transport.close()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accepts no more connections, answers what arrives on the open ones for a moment, and then closes them."""
        self._service.draining = True
        for server in self.servers:
            server.close()
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        loop = asyncio.get_running_loop()
        end = loop.time() + self._service.settings.linger
        while self.server_state.connections and loop.time() < end and not self.force_exit:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)


def run(folders: Mapping[str, Path], *, host: str = "127.0.0.1", port: int = 8000, settings: Settings | None = None) -> None:
    """Serves artifacts until the process gets SIGTERM or SIGINT.

    Args:
        folders: The folder of each model by its name. The first is the default.
        host: Address to listen on. ``0.0.0.0`` and ``::`` mean all addresses of this machine.
        port: Port to listen on; 0 for any free one.
        settings: The limits.

    Raises:
        ArtifactError: A folder holds no artifact, or a damaged one.
        RecipeError: The address or the port cannot be used.
    """
    _allow_many_connections()
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # a client could fill the log with malformed forms
    listening = listen(host, port)
    with listening:
        app = create_app([Model(name, folder) for name, folder in folders.items()], settings)
        service: Service = app.state.service
        config = uvicorn.Config(
            app,
            timeout_keep_alive=KEEP_ALIVE,
            http=_Protocol,
            ws="none",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
        )
        _announce(listening, host, service)
        Server(config, service).run(sockets=[listening])
        _log.info("stopped")


def listen(host: str, port: int) -> socket.socket:
    """Returns a listening socket. Raises `RecipeError` if the address or the port cannot be used."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        raise RecipeError(
            f"{option('host')} and {option('port')} must be an address of this machine and a free port",
            code="address-not-usable",
            field="port",
            received=f"{host} {port} ({getattr(error, 'strerror', None) or error})",
            hint="choose another port",
        ) from error


def _allow_many_connections() -> None:
    """Raises the soft limit of open files, often 1,024, to the hard limit, since each connection is an open file."""
    with suppress(ImportError, OSError, ValueError):  # Windows has no such limit
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _announce(listening: socket.socket, host: str, service: Service) -> None:
    shown = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, f"[{host}]" if ":" in host else host)
    for model in service.models:
        _log.info("serving %s from %s", model.name, model.folder)
    _log.info("open http://%s:%s", shown, listening.getsockname()[1])
    if service.settings.token is None and host not in ("127.0.0.1", "::1", "localhost"):
        _log.warning("anyone who can reach this machine can use the server; a token in CROSSROADS_TOKEN prevents this")
