"""The main job on images that come with scikit-learn, so that it runs with no data and no network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crossroads.api import fit
from crossroads.progress import Watcher
from crossroads.run.finish import Run

EPOCHS = 15
"""StopTraining for digits; the default for so few images is 100, which takes minutes on a slow machine."""


def digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """scikit-learn's handwritten digits: uint8 (1797, 8, 8), black on white as paper is, and labels int64 (1797,)."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return (255 - np.round(data.images * (255 / 16))).astype(np.uint8), data.target


def run_demo(out: Path | None, watcher: Watcher) -> tuple[Run, Path]:
    """Train on the digits.

    Args:
        out: A new folder, or None for ``runs/demo`` or the first of ``runs/demo-2``, ``runs/demo-3``, … that is free.
        watcher: Is told what goes on.

    Returns:
        The finished run, and an image file to try it on.
    """
    folder = out or _free(Path("runs/demo"))
    images, labels = digits()
    run = fit((images, labels), out=folder, strategy="from-scratch", epochs=EPOCHS, watcher=watcher)
    sample = folder.with_name(f"{folder.name}-digit-{labels[0]}.png")
    Image.fromarray(images[0]).save(sample)
    return run, sample


def _free(folder: Path) -> Path:
    number, candidate = 1, folder
    while candidate.exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate
