"""A small trained artifact for the benchmarks that need one."""

from __future__ import annotations

from pathlib import Path


def make(folder: str) -> None:
    """One epoch on scikit-learn's digits, at 32 px; where the folder holds one already, nothing. Leaves ``digit.png`` beside it."""
    from PIL import Image

    import crossroads
    from crossroads.artifact import is_finished
    from crossroads.demo import digits

    if is_finished(folder):
        return
    images, labels = digits()
    Image.fromarray(images[0]).save(Path(folder).with_name("digit.png"))
    crossroads.fit((images, labels), out=folder, backbone="small-cnn", image_size=32, epochs=1)
