"""Lists torchvision's names for the layers of the networks that are built here. State dicts are matched by these names."""

from __future__ import annotations

_ALEXNET = {
    "features.0": "conv1",
    "features.3": "conv2",
    "features.6": "conv3",
    "features.8": "conv4",
    "features.10": "conv5",
    "classifier.1": "fc6",
    "classifier.4": "fc7",
}
_SQUEEZENET = {
    "features.0": "conv1",
    **{
        f"features.{index}.{theirs}": f"fire{number}_{ours}"
        for index, number in zip((3, 4, 6, 7, 9, 10, 11, 12), range(2, 10), strict=True)
        for theirs, ours in (("squeeze", "squeeze1x1"), ("expand1x1", "expand1x1"), ("expand3x3", "expand3x3"))
    },
}
NAMES = (_ALEXNET, _SQUEEZENET)
"""Our name for each of torchvision's layers without the classifier (torchvision/models/alexnet.py, squeezenet.py version 1.1)."""
