"""Whole processes: how long until the command line answers."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from benchmarks._measure import Row, Settings, alternate, crossroads, fresh, run, seconds_of

PASS = [sys.executable, "-c", "pass"]
WITH_KERAS = """
import sys, keras, numpy
from PIL import Image
model = keras.models.load_model(sys.argv[1])
image = Image.open(sys.argv[2]).convert("RGB").resize(model.input_shape[1:3], Image.Resampling.BILINEAR)
print(model.predict(numpy.asarray(image)[None], verbose=0)[0].argsort()[::-1][:5])
"""


def startup(settings: Settings) -> Iterator[Row]:
    for title, command in (
        ("crossroads --help", crossroads("--help")),
        ("import crossroads", [sys.executable, "-c", "import crossroads"]),
    ):
        yield _pair(f"startup, {title}", command, "python -c pass", PASS, settings)


def first_predict(settings: Settings) -> Iterator[Row]:
    artifact = settings.scratch / "artifact"
    fresh("benchmarks.artifacts:make", str(artifact))
    image = str(artifact.with_name("digit.png"))
    keras = [sys.executable, "-c", WITH_KERAS, str(artifact / "model.keras"), image]
    yield _pair("first-predict", crossroads("predict", artifact, image), "Keras loads model.keras", keras, settings)


def _pair(name: str, command: list[str], against: str, other: list[str], settings: Settings) -> Row:
    ours, theirs = alternate(settings.runs, lambda: seconds_of(lambda: run(command)), lambda: seconds_of(lambda: run(other)))
    return Row(name, "s", ours, against, theirs)
