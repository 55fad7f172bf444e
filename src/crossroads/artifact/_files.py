"""The names of the files of an artifact."""

from __future__ import annotations

MANIFEST = "crossroads.json"
GRAPH = ("model.xml", "model.bin")
SEEN = "seen.npy"
"""File of the digests of the training and validation images."""

METRICS = "metrics.json"
KERAS = "model.keras"
"""File of the Keras model. An artifact whose backbone stayed frozen has none."""

FILES = (KERAS, *GRAPH, "history.csv", "recipe.toml", SEEN, METRICS)
"""Every file of a finished artifact except ``crossroads.json``. All but `KERAS` are always there."""
