"""What every test may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


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
