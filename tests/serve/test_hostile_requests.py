"""Covers hostile requests: whatever a client sends, the server answers with a proper status, lives on, and does not grow."""

import http.client
import io
import json
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from crossroads.serve.app import create_app
from crossroads.serve.models import Model
from crossroads.serve.settings import Settings
from picture_files import bomb, encoded, pictures
from serve_running import running

with warnings.catch_warnings(action="ignore"):
    import schemathesis
    from schemathesis.specs.openapi.checks import positive_data_acceptance

ANSWERS = {200, 400, 404, 405, 408, 413, 415, 422}


def test_the_interface_does_what_it_documents(first):
    """Schemathesis makes requests from the documentation of the interface, right ones and wrong ones."""
    app = create_app([Model("m", first)], Settings(max_body=100_000, max_files=4))
    interface = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [found.ok() for found in interface.get_all_operations()]
    assert {operation.path for operation in operations} == {
        "/v1/predict",
        "/v1/explain",
        "/v1/models",
        "/health",
        "/ready",
        "/metrics",
    }
    statuses = set()
    for operation in operations:

        @settings(max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def check(case):
            answer = case.call()
            statuses.add(answer.status_code)
            case.validate_response(answer, excluded_checks=[positive_data_acceptance])  # a schema cannot say: the bytes of an image

        check()
    assert statuses <= ANSWERS
    app.state.service.batches.close()


@pytest.fixture(scope="module")
def server(first):
    with running(first, "--max-body", 1, "--max-pixels", 5) as started:
        yield started


def photo(kind):
    return encoded(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8), kind)


def damaged_files(rng):
    """Yields files that are cut, changed, or nothing at all."""
    whole = [photo(kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "AVIF")]
    while True:
        data = bytearray(whole[rng.integers(len(whole))])
        way = rng.integers(4)
        if way == 0:
            data = data[: rng.integers(len(data))]
        elif way == 1:
            for position in rng.integers(0, len(data), 10):
                data[position] = rng.integers(256)
        elif way == 2:
            for position in rng.integers(0, min(len(data), 60), 3):
                data[position] = rng.integers(256)
        else:
            data = bytearray(rng.bytes(int(rng.integers(0, 3000))))
        yield bytes(data)


def damaged_forms(rng, files):
    """Yields bodies of forms, some of them whole, of damaged files."""
    while True:
        body = io.BytesIO()
        for _ in range(rng.integers(0, 4)):
            name = "".join(map(chr, rng.integers(32, 1000, 5))).encode()
            body.write(b'--b\r\nContent-Disposition: form-data; name="a"; filename="' + name + b'"\r\n\r\n' + next(files) + b"\r\n")
        body.write(b"--b--\r\n")
        data = bytearray(body.getvalue())
        if rng.integers(2):
            for position in rng.integers(0, len(data), rng.integers(1, 5)):
                data[position] = rng.integers(256)
        yield bytes(data[: rng.integers(len(data)) if rng.integers(4) == 0 else len(data)])


KINDS = (
    "image/png",
    "application/octet-stream",
    "image/",
    "text/plain",
    "multipart/form-data",
    "multipart/form-data; boundary=b",
    "\xff",
)


def send_random(server, number, seed):
    """Sends random bodies, and returns the statuses."""
    rng = np.random.default_rng(seed)
    files = damaged_files(rng)
    forms = damaged_forms(rng, files)
    statuses = set()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    for _ in range(number):
        is_form = rng.integers(2)
        kind = "multipart/form-data; boundary=b" if is_form else KINDS[rng.integers(len(KINDS))]
        connection.request("POST", "/v1/predict", next(forms if is_form else files), {"Content-Type": kind})
        answer = connection.getresponse()
        body = json.loads(answer.read())
        assert ("error" in body) == (answer.status != 200)
        statuses.add(answer.status)
    connection.close()
    return statuses


def test_random_bodies_are_answered(server):
    assert send_random(server, 300, seed=0) <= ANSWERS
    assert server.process.poll() is None


@pytest.mark.slow
def test_many_random_bodies_are_answered_and_the_server_does_not_grow(server):
    assert send_random(server, 2_000, seed=1) <= ANSWERS
    before = server.memory_mb()
    assert send_random(server, 10_000, seed=2) <= ANSWERS
    assert server.memory_mb() - before < 30


def test_bombs_and_large_images_do_not_hold_memory(server):
    (picture,) = pictures(1)
    for data, status in ((bomb(20_000, 20_000), 422), (bomb(2_200, 2_200), 200), (b"x" * 2**21, 413), (picture, 200)):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        try:
            connection.request("POST", "/v1/predict", data, {"Content-Type": "image/png"})
        except (BrokenPipeError, ConnectionResetError):
            assert status == 413  # the server closed the connection instead of reading everything
        else:
            assert connection.getresponse().status == status
        connection.close()
    assert server.memory_mb() < 500
