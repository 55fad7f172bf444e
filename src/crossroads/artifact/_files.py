"""The names of the files of an artifact."""

from __future__ import annotations

MANIFEST = "crossroads.json"
GRAPH = ("model.xml", "model.bin")
SEEN = "seen.npy"
"""File of the digests of the training and validation images."""

METRICS = "metrics.json"
KERAS = "model.keras"
"""File of the Keras model. An artifact whose backbone stayed frozen has none."""

HELD_OUT = "held_out.npz"
"""File of the predictions that the scores are computed from. Artifacts of earlier versions have none."""

NEIGHBOURS = "neighbours.npz"
"""File of the features of training images. Artifacts of earlier versions have none."""

FILES = (KERAS, *GRAPH, "history.csv", "recipe.toml", SEEN, METRICS)
"""Every file of a finished artifact except ``crossroads.json`` and the `OPTIONAL` ones. All but `KERAS` are always there."""

OPTIONAL = (HELD_OUT, NEIGHBOURS)
"""Files that an artifact may have, and that are verified like the others if its manifest lists them."""

THUMBNAILS, REPORT, CARD = "thumbnails.npz", "report.html", "README.md"
DOCUMENTS = (THUMBNAILS, REPORT, CARD)
"""Files for people, which are made from the artifact once it is finished. They are neither listed nor verified, so that they can be
edited, removed and made again."""


def may_lack(name: str) -> bool:
    """Returns whether an artifact can be without a file."""
    return name == KERAS or name in OPTIONAL
