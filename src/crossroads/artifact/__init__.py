"""Saves a trained classifier as one folder that holds nothing executable, and loads it.

    model.keras      the Keras model, for further training; loaded in safe mode only; absent if the backbone stayed frozen
    model.xml, .bin  the OpenVINO graph, for inference
    history.csv      one line per epoch
    recipe.toml      the recipe that repeats the run
    seen.npy         digests of the training and validation images
    metrics.json     the scores of the graph
    held_out.npz     the predictions that the scores are computed from
    neighbours.npz   the features of training images
    crossroads.json  classes, preprocessing, recipe, seeds, versions, digests of the data and of each file above, and of itself

An artifact is written in three steps, so that a half-written one is never taken for a whole one:

1. `draft` writes all files but the metrics to ``RUN/.artifact-partial/``, and compares the graph with the model.
2. The caller scores the draft through the predictor and passes the metrics to `Draft.finish`.
3. `finish` flushes every file to the disk (fsync), then moves each into ``RUN``, ``crossroads.json`` last. Each move is atomic,
   and a folder is an artifact exactly if it holds ``crossroads.json``.

``report.html``, ``README.md`` and ``thumbnails.npz`` are made from the finished artifact, for people. They are not verified.

A run that is killed before the last move leaves a folder that is not an artifact, and the next `draft` there removes the leftovers.
After an error the files that were moved are removed again, except those that replaced a file of the same name. Other files in
``RUN``, such as checkpoints, do not belong to the artifact. An artifact that is improved while `fit` still runs is replaced as a
whole; see `_replacement`.
"""

from crossroads.artifact._draft import PARTIAL, Contents, Draft, amend, copy, draft, is_finished, refuse_finished, write
from crossroads.artifact._export import TOLERANCE, Parity, load_model
from crossroads.artifact._files import (
    CARD,
    DOCUMENTS,
    FILES,
    GRAPH,
    HELD_OUT,
    KERAS,
    MANIFEST,
    NEIGHBOURS,
    OPTIONAL,
    REPORT,
    THUMBNAILS,
)
from crossroads.artifact._held_out import HeldOut, Predictions, predictions_of, read_held_out
from crossroads.artifact._manifest import (
    FORMAT,
    SEEN_BY_WEIGHTS,
    Manifest,
    open_verified,
    read_metrics,
    read_seen,
    seen_by_weights,
)
from crossroads.artifact._neighbours import MOST_BYTES, MOST_ROWS, Neighbours, read_neighbours
from crossroads.artifact._rehearsal import rehearse

__all__ = [
    "CARD",
    "DOCUMENTS",
    "FILES",
    "FORMAT",
    "GRAPH",
    "HELD_OUT",
    "KERAS",
    "MANIFEST",
    "MOST_BYTES",
    "MOST_ROWS",
    "NEIGHBOURS",
    "OPTIONAL",
    "PARTIAL",
    "REPORT",
    "SEEN_BY_WEIGHTS",
    "THUMBNAILS",
    "TOLERANCE",
    "Contents",
    "Draft",
    "HeldOut",
    "Manifest",
    "Neighbours",
    "Parity",
    "Predictions",
    "amend",
    "copy",
    "draft",
    "is_finished",
    "load_model",
    "open_verified",
    "predictions_of",
    "read_held_out",
    "read_metrics",
    "read_neighbours",
    "read_seen",
    "refuse_finished",
    "rehearse",
    "seen_by_weights",
    "write",
]
