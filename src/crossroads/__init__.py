"""Turns labelled images into a tested image classifier.

Each public name is loaded at its first use (PEP 562), so ``import crossroads`` itself is fast.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossroads.advice.evidence import Advice
    from crossroads.api import advise, audit, compare, evaluate, fit, write_report
    from crossroads.data.audit import Audit
    from crossroads.data.dataset import Dataset
    from crossroads.data.readers import read
    from crossroads.errors import CrossroadsError, CrossroadsWarning
    from crossroads.estimator import ImageClassifier
    from crossroads.evaluation import Evaluation
    from crossroads.predictor import Predictor, load
    from crossroads.progress import Silent, Uncounted, Watcher
    from crossroads.recipe import Augmentation, Recipe
    from crossroads.run.finish import Run

__version__ = "0.1.0"

_HOMES = {
    "Advice": "crossroads.advice.evidence",
    "Audit": "crossroads.data.audit",
    "Augmentation": "crossroads.recipe",
    "CrossroadsError": "crossroads.errors",
    "CrossroadsWarning": "crossroads.errors",
    "Dataset": "crossroads.data.dataset",
    "Evaluation": "crossroads.evaluation",
    "ImageClassifier": "crossroads.estimator",
    "Predictor": "crossroads.predictor",
    "Recipe": "crossroads.recipe",
    "Run": "crossroads.run.finish",
    "Silent": "crossroads.progress",
    "Uncounted": "crossroads.progress",
    "Watcher": "crossroads.progress",
    "advise": "crossroads.api",
    "audit": "crossroads.api",
    "compare": "crossroads.api",
    "evaluate": "crossroads.api",
    "fit": "crossroads.api",
    "load": "crossroads.predictor",
    "read": "crossroads.data.readers",
    "write_report": "crossroads.api",
}

__all__ = [
    "Advice",
    "Audit",
    "Augmentation",
    "CrossroadsError",
    "CrossroadsWarning",
    "Dataset",
    "Evaluation",
    "ImageClassifier",
    "Predictor",
    "Recipe",
    "Run",
    "Silent",
    "Uncounted",
    "Watcher",
    "advise",
    "audit",
    "compare",
    "evaluate",
    "fit",
    "load",
    "read",
    "write_report",
]

# As in any library, so that a program without logging prints nothing.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'crossroads' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*(name for name in globals() if name.startswith("__")), *__all__])
