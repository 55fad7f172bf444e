"""One folder that holds all of a trained classifier, and nothing that executes.

    model.keras      the Keras model, for further training; loaded in safe mode only
    model.xml, .bin  the OpenVINO graph, for inference
    history.csv      one line an epoch
    recipe.toml      the recipe that repeats the run
    seen.npy         digests of the images that it was trained on or chosen by
    metrics.json     what the graph scored
    crossroads.json  classes, preprocessing, recipe, seeds, versions, digests of the data and of each file above, and of itself

How it is written, so that there is never half an artifact:

1. `draft` builds all but the metrics in ``RUN/.artifact-partial/``, and checks the graph against the model.
2. The caller scores what lies there, through the predictor, and gives the metrics to `Draft.finish`.
3. `finish` brings every file to the disk (fsync), then moves each into ``RUN`` and ``crossroads.json`` last. Each move is atomic,
   and a folder is an artifact exactly when it holds ``crossroads.json``.

A run that is killed before that last move leaves a folder that is no artifact; the next `draft` there clears the rest away. An
error leaves no artifact, and nothing of this one but where it replaced a file of the same name. Other files in ``RUN``, such as
checkpoints, are no part of the artifact.
"""

from crossroads.artifact._draft import PARTIAL, Contents, Draft, copy, draft, is_finished, refuse_finished, write
from crossroads.artifact._export import TOLERANCE, load_model
from crossroads.artifact._manifest import (
    FILES,
    FORMAT,
    GRAPH,
    MANIFEST,
    SEEN_BY_WEIGHTS,
    Manifest,
    open_verified,
    read_metrics,
    read_seen,
    seen_by_weights,
)
from crossroads.artifact._rehearsal import rehearse

__all__ = [
    "FILES",
    "FORMAT",
    "GRAPH",
    "MANIFEST",
    "PARTIAL",
    "SEEN_BY_WEIGHTS",
    "TOLERANCE",
    "Contents",
    "Draft",
    "Manifest",
    "copy",
    "draft",
    "is_finished",
    "load_model",
    "open_verified",
    "read_metrics",
    "read_seen",
    "refuse_finished",
    "rehearse",
    "seen_by_weights",
    "write",
]
