"""Small labelled pictures that a network learns in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def stripes(n, classes=("level", "upright"), size=16, seed=0):
    """Returns vertical, horizontal or diagonal stripes in noise: uint8 (n, size, size, 3), and their class names as labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % len(classes)
    y, x = np.mgrid[:size, :size]
    waves = [(y // 2) % 2, (x // 2) % 2, ((x + y) // 2) % 2]
    clean = np.stack([waves[label] for label in labels])[..., None] * 160 + 40
    noisy = clean + rng.normal(0, 20, (n, size, size, 3))
    return noisy.clip(0, 255).astype(np.uint8), np.array(classes)[labels]


def folder_of(path: Path, images, labels, suffix="png", split=""):
    """Writes the images as class folders, or as `split`/class folders."""
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        home = path / split / str(label)
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(home / f"{i:04d}.{suffix}")
    return path
