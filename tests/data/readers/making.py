"""Small labelled images on disk, as folders and as archives of them, and the facts of a data set."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from crossroads.data.dataset import Dataset
from crossroads.progress import Note


def png(seed: int, suffix: str = ".png") -> bytes:
    """Returns an image of 5×4 px that differs for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, {".ppm": "PPM", ".jpg": "JPEG"}.get(suffix, "PNG"))
    return file.getvalue()


def write(folder: Path, files: Iterable[str] | dict[str, str | bytes]) -> Path:
    """Writes files below `folder`: images if only names are given. A name with a slash at its end is an empty folder."""
    contents = files if isinstance(files, dict) else dict.fromkeys(files)
    for seed, (name, content) in enumerate(contents.items()):
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = png(seed, path.suffix) if content is None else content
        path.write_bytes(raw.encode() if isinstance(raw, str) else raw)
    return folder


def archive(folder: Path, kind: str) -> Path:
    """Packs the contents of a folder as "zip", "tar", "tar.gz" or "tar.xz"."""
    path = folder.parent / f"{folder.name}.{kind}"
    entries = sorted(folder.rglob("*"))
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for entry in entries:
                packed.write(entry, entry.relative_to(folder))
        return path
    with tarfile.open(path, "w:" + kind.removeprefix("tar").removeprefix(".")) as tar:
        for entry in entries:
            tar.add(entry, entry.relative_to(folder), recursive=False)
    return path


def facts(dataset: Dataset) -> dict[str, object]:
    """Returns everything that a reader decides, content included."""
    return {
        "rows": [dataset.row(row) for row in range(len(dataset))],
        "raw": [bytes(dataset.read(row)) for row in range(len(dataset))],
        "classes": dataset.classes,
        "notes": dataset.notes,
    }


def codes(dataset: Dataset) -> list[str]:
    """Returns the codes of a data set's notes, in their order."""
    return [_note(note).code for note in dataset.notes]


def figures(dataset: Dataset, code: str) -> list[dict[str, object]]:
    """Returns the figures of each note with this code."""
    return [_note(note).figures for note in dataset.notes if _note(note).code == code]


def _note(note: str) -> Note:
    assert isinstance(note, Note), note
    return note
