"""What every test may ask for."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from crossroads._runtime.process import keep_freed_memory, use_onednn
from crossroads.features import engine

# Before a test module imports Keras, what crossroads sets before it does.
keep_freed_memory()
use_onednn()

# Traced graphs are millions of objects. Looking through all of them as often as Python does by default takes a seventh of a fit.
gc.set_threshold(100_000, 20, 20)

# No test downloads weights. Those of the default network are installed.
os.environ["CROSSROADS_WEIGHTS_URL"] = "http://127.0.0.1:9"

# Batches are tried for a moment: the tests make a hundred graphs, and none is held to a speed.
engine.MEASURE_SECONDS = 0.01

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_finish() -> None:
    """What was imported stays: the collector need not look at it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images beside the checkout; a test that needs it is skipped, visibly, where it is absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("needs the shared data beside the checkout: ../shared/data")
    return folder


@pytest.fixture(scope="session")
def shared_weights() -> Path:
    """The folder of real ImageNet weights beside the checkout; a test that needs it is skipped, visibly, where it is absent."""
    folder = SHARED / "weights"
    if not folder.is_dir():
        pytest.skip("needs the shared weights beside the checkout: ../shared/weights")
    return folder
