"""Covers the whole server in a process of its own: start, stop under load, slow clients, malformed requests, and the command."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from crossroads.cli._serve import _token, serve
from crossroads.errors import MissingExtraError, RecipeError
from crossroads.serve.server import listen
from picture_files import pictures
from refusals import refused
from serve_running import running


@pytest.fixture(scope="module")
def server(first):
    """Returns a running server, whose limits on time are the usual ones."""
    with running(first) as started:
        yield started


def post(port, body, path="/v1/predict?top=1", connection=None):
    """Returns the status and the body of an answer."""
    used = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    used.request("POST", path, body, {"Content-Type": "application/octet-stream"})
    answer = used.getresponse()
    text = answer.read()
    if connection is None:
        used.close()
    return answer.status, json.loads(text)


def test_it_loads_no_training_framework(server):
    done = subprocess.run(
        [sys.executable, "-c", "import sys, crossroads.serve.server; print(sorted(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"keras", "tensorflow", "torch", "jax"} & set(eval(done.stdout))  # noqa: S307


def test_it_announces_its_models_and_address(server):
    assert server.lines[0].startswith("serving first from ")
    assert server.lines[1].strip() == f"open {server.address}"
    assert post(server.port, pictures(1)[0])[0] == 200


def raw(server, data, wait=5.0):
    """Sends bytes and returns all that comes back until the connection is closed or nothing comes for a while."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=wait) as connection:
        connection.sendall(data)
        received = b""
        try:
            while part := connection.recv(65536):
                received += part
        except TimeoutError:
            pass
        return received


def test_malformed_http_is_answered_with_json(server):
    head, _, body = raw(server, b"\x00\x01\x02 nonsense\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert json.loads(body)["error"]["code"] == "malformed-request"


def test_a_body_that_is_too_large_is_refused_before_it_arrives(server):
    head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 99999999999\r\n\r\n"
    received = raw(server, head)
    assert received.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in received.lower()


def test_a_connection_that_breaks_in_the_body_leaves_the_server_well(server):
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\nabc")
    assert post(server.port, pictures(1)[0])[0] == 200


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_what_it_accepted_before_it_stops(first, how):
    """Every request whose connection was open gets its answer. Later connections are refused."""
    lost, answered, refused_later = [], [], []
    bodies = pictures(8, side=60)

    def ask(number):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        while True:
            try:
                connection.connect()
            except ConnectionRefusedError:
                refused_later.append(number)
                return
            try:
                while True:
                    status, _ = post(server.port, bodies[number], connection=connection)
                    answered.append(status)
                    if connection.sock is None:  # the server said that it closes the connection
                        break
            except (OSError, http.client.HTTPException) as error:
                lost.append(error)
                return

    with running(first) as server:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 30
        while len(answered) < 100 and time.monotonic() < end:
            time.sleep(0.01)
        assert server.stop(how) == 0
        for thread in threads:
            thread.join(30)
        assert server.lines[-1].strip() == "stopped"
    assert lost == []
    assert set(answered) == {200}
    assert sorted(refused_later) == list(range(8))


def test_a_port_in_use_is_a_users_mistake(server):
    with refused("address-not-usable", RecipeError, field="port"):
        listen("127.0.0.1", server.port)
    with refused("address-not-usable", RecipeError):
        listen("no-such-host.invalid", 0)


def test_a_mistake_on_the_command_line_gives_one_line(tmp_path):
    command = [sys.executable, "-m", "crossroads", "serve", str(tmp_path), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "must be a finished artifact" in line


def test_tokens_that_cannot_be_sent_are_refused(tmp_path, monkeypatch):
    monkeypatch.delenv("CROSSROADS_TOKEN", raising=False)
    file = tmp_path / "token"
    file.write_text("secret\n")
    assert (_token(file), _token(None)) == ("secret", None)
    file.write_text("\n")
    with refused("invalid-token", RecipeError):
        _token(file)
    with refused("unreadable-token", RecipeError):
        _token(tmp_path)
    monkeypatch.setenv("CROSSROADS_TOKEN", "two words")
    with refused("invalid-token", RecipeError):
        _token(None)


def test_a_missing_package_is_named_with_the_extra(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("crossroads.serve")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with refused("missing-extra", MissingExtraError):
        serve(["runs/photos"])


def test_the_token_comes_from_the_environment(first):
    with running(first, CROSSROADS_TOKEN="secret") as server:
        assert post(server.port, pictures(1)[0])[0] == 401
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("GET", "/v1/models", headers={"Authorization": "Bearer secret"})
        assert connection.getresponse().status == 200
        connection.close()
