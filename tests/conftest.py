"""Fixtures for all tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from crossroads._runtime.process import keep_freed_memory, use_onednn
from crossroads.features import engine

# Crossroads makes these settings before it imports Keras, so they are made before a test module does.
keep_freed_memory()
use_onednn()

# Traced graphs are millions of objects. With Python's default thresholds, garbage collection takes a seventh of a fit.
gc.set_threshold(100_000, 20, 20)

# No test downloads weights. Those of the default network are installed.
os.environ["CROSSROADS_WEIGHTS_URL"] = "http://127.0.0.1:9"

# Each batch size is measured only briefly, because the tests make a hundred graphs and depend on no speed.
engine.MEASURE_SECONDS = 0.01

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_finish() -> None:
    """Excludes the imported modules from garbage collection, which makes it faster."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Returns the folder of real images beside the checkout. Skips the test, visibly, if there is none."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("needs the shared data beside the checkout: ../shared/data")
    return folder


@pytest.fixture(scope="session")
def shared_weights() -> Path:
    """Returns the folder of real ImageNet weights beside the checkout. Skips the test, visibly, if there is none."""
    folder = SHARED / "weights"
    if not folder.is_dir():
        pytest.skip("needs the shared weights beside the checkout: ../shared/weights")
    return folder


@pytest.fixture(scope="session")
def shared_preset(tmp_path_factory) -> Callable[[str], str]:
    """Returns a function from a kind of preset of KerasHub to its name as a backbone. Each is written once."""
    from tiny_presets import preset

    return cache(lambda kind: preset(kind, tmp_path_factory.mktemp(kind)))
