"""Heat maps beside a random map and one that is bright in the middle: how fast the probability falls and rises with their order.

Deletion blurs the pixels of an image in the order of its map, the brightest first. Insertion begins with the blurred image and puts
its pixels back in the same order. The area under the curve of the probability is low for deletion and high for insertion if the map
is right (Petsiuk et al., 2018, https://arxiv.org/abs/1806.07421).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from benchmarks import tasks
from benchmarks._measure import Row, Settings

STEPS = 16
BLUR = 1 / 16
"""Standard deviation of the blur, as a fraction of the side."""

SETS = {"flowers5": tasks.flowers, "ants/bees": tasks.ants_bees}


def explain(settings: Settings) -> Iterator[Row]:
    for name, images in SETS.items():
        for head in ("linear",) if settings.quick else ("linear", "mlp"):
            yield from _rows(name, images(0), head, settings)


def _rows(name: str, data: Any, head: str, settings: Settings) -> Iterator[Row]:
    import crossroads
    from crossroads.data.dataset import TEST

    out = settings.scratch / f"{name.replace('/', '-')}-{head}"
    crossroads.fit(data, out=out, strategy="feature-extraction", head=head, watcher=crossroads.Silent())
    found = areas(out, data.select(data.splits == TEST), settings.size(60, 2), occlusion=head == "linear")
    centre = found.pop("centre").mean(axis=0)
    for method, values in found.items():
        for number, kind in enumerate(("deletion", "insertion")):
            title = f"heat maps, {name}, {head} head, {len(values)} images, {method}: area under {kind}"
            yield Row(title, "", (float(values[:, number].mean()),), "centre", (float(centre[number]),))


def areas(run: Path, images: Any, most: int, *, occlusion: bool) -> dict[str, NDArray[np.float64]]:
    """Returns the areas under the deletion and insertion curves of each map, (n, 2), by its name."""
    from crossroads.data.loading import load_all
    from crossroads.explain import Explainer
    from crossroads.predictor import Predictor

    predictor = Predictor.load(run)
    some = images.select(np.unique(np.linspace(0, len(images) - 1, most).round().astype(int)))
    pixels = load_all(some, predictor.manifest.resize).pixels
    size, rng = predictor.size, np.random.default_rng(0)
    explainers = [Explainer(predictor), *([Explainer(predictor, method="occlusion")] if occlusion else [])]
    maps: dict[str, NDArray[np.float32]] = {each.method: each.maps(pixels) for each in explainers}
    if occlusion:
        maps["random map"] = np.stack([_enlarged(each, size) for each in rng.random((len(pixels), 5, 5))])
    across = np.exp(-(((np.arange(size) + 0.5) / size - 0.5) ** 2) / (2 * 0.25**2)).astype(np.float32)
    maps["centre"] = np.broadcast_to(across[:, None] * across, (len(pixels), size, size))
    classes = predictor.probabilities(pixels).argmax(axis=1)
    columns = {name: zip(pixels, found, classes, strict=True) for name, found in maps.items()}
    return {name: np.stack([_areas(predictor, *each) for each in rows]) for name, rows in columns.items()}


def _enlarged(values: NDArray[np.float64], size: int) -> NDArray[np.float32]:
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR))


def _areas(predictor: Any, image: NDArray[np.uint8], heat: NDArray[np.float32], label: int) -> NDArray[np.float64]:
    """Returns the areas under the deletion and the insertion curve of one map."""
    size = len(image)
    blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(BLUR * size)))
    rank = np.empty(size * size, int)
    rank[np.argsort(-heat.ravel(), kind="stable")] = np.arange(size * size)
    first = [(rank < edge).reshape(size, size, 1) for edge in np.linspace(0, size * size, STEPS + 1)]
    changed = [np.where(pixels, blurred, image) for pixels in first] + [np.where(pixels, image, blurred) for pixels in first]
    probabilities = predictor.probabilities(np.stack(changed))[:, label].reshape(2, -1)
    return np.asarray(np.trapezoid(probabilities, dx=1 / STEPS, axis=1))
