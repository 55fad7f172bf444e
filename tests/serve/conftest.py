"""Fixtures of the tests of the server: an artifact, images and a client."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from crossroads import artifact
from crossroads.serve.app import create_app
from crossroads.serve.models import Model
from crossroads.serve.settings import Settings
from tiny_artifact import contents, model


@pytest.fixture(scope="session")
def first(tmp_path_factory) -> Path:
    """Returns the folder of an artifact that no test changes."""
    run = tmp_path_factory.mktemp("served") / "first"
    artifact.write(run, contents(), {})
    return run


@pytest.fixture(scope="session")
def second(tmp_path_factory) -> Path:
    """Returns the folder of another artifact that no test changes."""
    run = tmp_path_factory.mktemp("served") / "second"
    artifact.write(run, contents(model(seed=8)), {"headline": {"accuracy": 0.9, "interval": [0.8, 1.0], "images": 50}})
    return run


@pytest.fixture(scope="session")
def connect():
    """Returns a function that serves folders by name within a context, and gives a client."""

    def make(**options):
        folders = {name: options.pop(name) for name in list(options) if isinstance(options[name], Path)}
        app = create_app([Model(name, folder) for name, folder in folders.items()], Settings(**options))
        return TestClient(app, raise_server_exceptions=False)

    return make


@pytest.fixture(scope="module")
def client(connect, first, second):
    """Returns a client of a server with two models."""
    with connect(first=first, second=second) as made:
        yield made
