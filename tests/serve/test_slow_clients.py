"""Covers clients that send slowly or nothing, against a server with short limits in this process."""

import asyncio
import contextlib
import socket
import threading
import time

import pytest
import uvicorn

from crossroads.serve.app import create_app
from crossroads.serve.models import Model
from crossroads.serve.server import Server, listen
from crossroads.serve.settings import Settings
from picture_files import pictures


@pytest.fixture
def port(first):
    """Returns the port of a server that waits half a second for a body and for headers."""
    app = create_app([Model("m", first)], Settings(body_pause=0.5, header_seconds=0.5, body_seconds=1.5))
    listening = listen("127.0.0.1", 0)
    server = Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_keep_alive=30), app.state.service)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
    thread.start()
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def received(connection, seconds=10.0):
    """Returns what the server sends until it closes the connection, which it must."""
    connection.settimeout(seconds)
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            data += part
    return data


HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n"


def test_a_connection_without_a_request_is_closed(port):
    with socket.create_connection(("127.0.0.1", port)) as silent, socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(b"POST /v1/predict HTTP/1.1\r\nHo")
        assert received(silent) == b""
        assert received(slow) == b""


def test_a_body_that_pauses_is_refused(port):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(HEAD + b"abc")
        assert received(connection).startswith(b"HTTP/1.1 408")


def test_a_body_that_drips_is_refused_in_the_end(port):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(HEAD)
        began = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - began < 20:
                connection.sendall(b"x")
                time.sleep(0.1)
        assert time.monotonic() - began < 20


def test_slow_clients_do_not_delay_others(port):
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(socket.create_connection(("127.0.0.1", port))).sendall(HEAD + b"abc")
        with socket.create_connection(("127.0.0.1", port)) as connection:
            (picture,) = pictures(1)
            connection.sendall(HEAD.replace(b"1000", str(len(picture)).encode()) + picture)
            connection.settimeout(10)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
