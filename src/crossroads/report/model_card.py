"""Writes the model card of an artifact, ``README.md``, in the form of the Hugging Face hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from crossroads.errors import BackboneError
from crossroads.networks.catalog import backbone
from crossroads.report.facts import class_rows, confused_pairs, verdict
from crossroads.report.subject import Subject

SHOWN = 20
"""Most classes that the card lists."""

USE = """## How to use it

With Crossroads installed, in this folder:

```
crossroads predict . IMAGE
```

```python
import crossroads

predictor = crossroads.load(".")
print(predictor.predict(["image.jpg"])[0].labels[0])
```"""


def model_card(subject: Subject) -> str:
    """Returns the model card: YAML for programs, then what the classifier is, its data, its results, its use and its limits."""
    return f"---\n{front_matter(subject)}---\n\n" + "\n\n".join(_sections(subject)) + "\n"


def front_matter(subject: Subject) -> str:
    """Returns the facts for programs as YAML. Every value is written as JSON, which is YAML too."""
    scores = subject.scores
    metrics = [
        {"type": "accuracy", "value": round(scores["accuracy"], 4), "name": "Accuracy"},
        {"type": "balanced_accuracy", "value": round(scores["balanced_accuracy"], 4), "name": "Balanced accuracy"},
    ]
    facts: dict[str, object] = {
        **_licence_entries(licence_of(subject)),
        "library_name": "crossroads",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "transfer-learning", "openvino", "crossroads"],
        "metrics": ["accuracy"],
        "model-index": [
            {
                "name": subject.name,
                "results": [
                    {
                        "task": {"type": "image-classification", "name": "Image classification"},
                        "dataset": {"name": _data_name(subject), "type": "custom", "split": subject.source},
                        "metrics": metrics,
                    }
                ],
            }
        ],
    }
    return "".join(f"{key}: {json.dumps(value, ensure_ascii=True)}\n" for key, value in facts.items())


def licence_of(subject: Subject) -> str | None:
    """Returns the licence of the weights that the run started from; None if it is unknown, or if they are random."""
    pretrained = subject.manifest.facts.get("pretrained")
    if not pretrained:
        return None
    if pretrained.get("licence"):
        return str(pretrained["licence"])
    if pretrained.get("from") == "imagenet":
        with suppress(BackboneError):
            weights = backbone(subject.manifest.backbone).pretrained
            return None if weights is None else weights.licence
    return None


def _licence_entries(licence: str | None) -> dict[str, object]:
    """Returns the licence as the hub expects it: a short identifier in lower case, or ``other`` with a name."""
    if licence is None:
        return {}
    if re.fullmatch(r"[A-Za-z0-9.-]+", licence):
        return {"license": licence.lower()}
    return {"license": "other", "license_name": licence}


def _sections(subject: Subject) -> Iterator[str]:
    yield f"# {_plain(subject.name)}\n\nAn image classifier with {len(subject.classes)} classes, made by Crossroads."
    yield _what(subject)
    yield _data(subject)
    yield _results(subject)
    yield USE
    yield _limits(subject)


def _what(subject: Subject) -> str:
    facts = subject.manifest.facts
    pretrained = facts.get("pretrained") or {}
    weights = {"imagenet": "ImageNet weights", None: "random weights"}.get(pretrained.get("from"), str(pretrained.get("from")))
    licence = licence_of(subject)
    manifest = subject.manifest
    start = f"{_plain(weights)} ({_plain(licence)})" if licence else _plain(weights)
    return (
        f"## What it is\n\nStrategy {manifest.strategy} on the backbone {_plain(manifest.backbone)}, which starts from {start}. "
        f"It takes RGB images of {manifest.resize.size} px and returns a probability for each class: {_names(subject.classes)}.\n\n"
        "`model.xml` and `model.bin` are an OpenVINO graph that includes the preprocessing. "
        "`crossroads.json` has the classes, the recipe, the versions and the digest of every file."
    )


def _data(subject: Subject) -> str:
    facts = subject.manifest.facts["data"]
    splits = ", ".join(f"{split['n']:,} {name}" for name, split in facts["splits"].items())
    return f"## Data\n\n{_plain(_data_name(subject))}: {splits} images. The licence of the data is not known to Crossroads."


def _results(subject: Subject) -> str:
    scores = subject.scores
    sentence = verdict(scores, subject.images, subject.manifest.strategy, _plain(subject.manifest.backbone))
    rows = class_rows(subject.confusion, subject.classes)
    lines = ["| class | images | recall | precision |", "|---|---|---|---|"]
    lines += [f"| {_plain(row.name)} | {row.images:,} | {_cell(row.recall)} | {_cell(row.precision)} |" for row in rows[:SHOWN]]
    text = f"## Results\n\n{sentence}\n\n" + "\n".join(lines)
    return text + (f"\n\nThe {SHOWN} worst of {len(rows)} classes are listed. `report.html` has all." if len(rows) > SHOWN else "")


def _limits(subject: Subject) -> str:
    pairs = confused_pairs(subject.confusion, 3)
    lines = ["It knows only its own classes: an image of anything else is assigned to one of them."]
    lines.append("The scores hold for images like those that it was tested on.")
    if subject.scores.get("seen_in_training"):
        lines.append("Some of these images were used in training, so the scores are optimistically biased.")
    if pairs:
        named = (f"{_plain(subject.classes[pair.true])} for {_plain(subject.classes[pair.predicted])}" for pair in pairs)
        lines.append(f"It most often takes {', '.join(named)}.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _data_name(subject: Subject) -> str:
    """Returns the name of the data: the last part of its path, because a card is published."""
    origin: Any = subject.origin or subject.manifest.facts["data"]["origin"]
    return str(origin).rstrip("/").replace("\\", "/").rpartition("/")[2] or "images"


def _names(classes: tuple[str, ...]) -> str:
    listed = ", ".join(map(_plain, classes[:SHOWN]))
    return listed + (f" and {len(classes) - SHOWN} more" if len(classes) > SHOWN else "")


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


_SPECIAL: Mapping[int, str] = str.maketrans(
    {character: f"\\{character}" for character in "\\`*_{}[]<>#|!"} | {"\n": " ", "\r": " "}
)


def _plain(text: str) -> str:
    """Returns text in which Markdown has no effect."""
    return text.translate(_SPECIAL).encode("utf-8", "backslashreplace").decode()
