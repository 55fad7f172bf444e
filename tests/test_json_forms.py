"""Covers the JSON of evaluations, audits and runs: keys, their order and values, which files and programs rely on."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from crossroads.data.audit import Audit
from crossroads.data.findings import Finding
from crossroads.data.loading import Refusal
from crossroads.evaluation import evaluate
from crossroads.networks.cut import Cut
from crossroads.progress import Note
from crossroads.run import metrics
from crossroads.run.finish import Run
from crossroads.run.metrics import BackboneMetrics, FeatureMetrics, PhaseMetrics, RunMetrics, TrainingMetrics, ValidationMetrics

NOTE = Note("a note", "some-code", images=3)
REFUSAL = Refusal(2, "q.png", "truncated")
SCORED = replace(
    evaluate(
        np.array([[0.75, 0.25, 0], [0.25, 0.75, 0], [0.5, 0.25, 0.25]]), np.array([0, 1, 1]), ("a", "b", "c"), names=["x", "y", "z"]
    ),
    refused=(REFUSAL,),
    warnings=(NOTE,),
    seen_in_training=1,
)
EVALUATION = {
    "n": 3,
    "accuracy": 2 / 3,
    "accuracy_interval": list(SCORED.accuracy_interval),
    "balanced_accuracy": 0.75,
    "loss": SCORED.loss,
    "classes": ["a", "b", "c"],
    "groups": None,
    "balanced_accuracy_interval": list(SCORED.balanced_accuracy_interval),
    "interval_method": "wilson",
    "top_k": {"1": 2 / 3},
    "per_class": [
        {"name": "a", "precision": 0.5, "recall": 1.0, "f1": 2 / 3, "support": 1},
        {"name": "b", "precision": 1.0, "recall": 0.5, "f1": 2 / 3, "support": 2},
        {"name": "c", "precision": None, "recall": None, "f1": None, "support": 0},
    ],
    "confusion_matrix": [[1, 0, 0], [1, 1, 0], [0, 0, 0]],
    "expected_calibration_error": SCORED.expected_calibration_error,
    "mistakes": [{"name": "z", "true": "b", "predicted": "a", "confidence": 0.5}],
    "seen_in_training": 1,
    "refused": [{"name": "q.png", "reason": "truncated"}],
    "warnings": ["a note"],
    "untested_classes": ["c"],
}
HEADLINE = {"accuracy": 2 / 3, "interval": list(SCORED.accuracy_interval), "images": 3}
HEAD = PhaseMetrics("head", 1, 1, 0.5, 0.75, 0.25, {"kind": "softmax", "tried": ({"kind": "ridge"},)})
TUNE = PhaseMetrics("tune", 3, 2, 1.5, 1.0, 0.125)
PHASES = [
    {
        "name": "head",
        "epochs": 1,
        "best_epoch": 1,
        "seconds": 0.5,
        "validation_accuracy": 0.75,
        "validation_loss": 0.25,
        "head": {"kind": "softmax", "tried": [{"kind": "ridge"}]},
    },
    {"name": "tune", "epochs": 3, "best_epoch": 2, "seconds": 1.5, "validation_accuracy": 1.0, "validation_loss": 0.125},
]


def same(record, expected):
    """Whether a record's JSON is equal, in the order of its keys too."""
    return json.dumps(record.to_json()) == json.dumps(expected)


def test_an_evaluation():
    assert same(SCORED, EVALUATION)
    assert [note.code for note in SCORED.to_json()["warnings"]] == ["some-code"]


def test_an_audit():
    findings = (Finding("blank", "warning", "1 image is blank", 1, ("x.png",), "remove it"),)
    audit = Audit(
        *("data", 3, 2, {"a": 2, "b": 1}, None, {"train": 3}, (8, 9, 10), 0, (("a", "b"),), ("a",), ("b",)),
        *(findings, (NOTE,), (REFUSAL,)),
    )
    assert same(
        audit,
        {
            "origin": "data",
            "n": 3,
            "readable": 2,
            "counts": {"a": 2, "b": 1},
            "groups": None,
            "splits": {"train": 3},
            "sides": [8, 9, 10],
            "grey": 0,
            "mirror_classes": [["a", "b"]],
            "asymmetric_classes": ["a"],
            "symmetric_classes": ["b"],
            "findings": [
                {
                    "code": "blank",
                    "severity": "warning",
                    "summary": "1 image is blank",
                    "count": 1,
                    "examples": ["x.png"],
                    "hint": "remove it",
                }
            ],
            "refused": [{"name": "q.png", "reason": "truncated"}],
            "warnings": ["a note"],
        },
    )


def test_a_run_with_a_pretrained_backbone():
    cut = Cut(name="c", index=2, depth=0.123456, shape=(2, 2, 4), multiply_adds=10, parameters=5, activations=7)
    features = {"c": FeatureMetrics((4,), 2, 0.25, 6, "openvino")}
    backbone = BackboneMetrics({"from": "imagenet", "digest": "ab"}, cut, "c", features)
    run = RunMetrics(
        backbone="net",
        strategy="finetune",
        seconds=2.5,
        peak_memory_mb=None,
        training=TrainingMetrics(TUNE, (HEAD, TUNE), backbone, ("train", "validation")),
        validation=ValidationMetrics(SCORED, {"folds": 5, "repeats": 2}),
        test=metrics.TestMetrics(SCORED, 1, "cd", 3.0),
        refused={"train": (REFUSAL,), "test": ()},
        notes=(NOTE,),
        warnings=("w",),
        selection={"asked": {"strategy": "auto"}, "race": {"seconds": 1.5}},
    )
    assert same(
        run,
        {
            "backbone": "net",
            "strategy": "finetune",
            "seconds": 2.5,
            "peak_memory_mb": None,
            "headline": HEADLINE | {"source": "cross-validation"},
            "epochs": 3,
            "best_epoch": 2,
            "kept_phase": "tune",
            "phases": PHASES,
            "fitted_on": ["train", "validation"],
            "weights": {"from": "imagenet", "digest": "ab"},
            "cut": {"name": "c", "index": 2, "depth": 0.1235},
            "frozen_to": "c",
            "features": {"c": {"shape": [4], "views": 2, "seconds": 0.25, "computed": 6, "runs_on": "openvino"}},
            "validation": EVALUATION | {"cross_validated": {"folds": 5, "repeats": 2}},
            "test": EVALUATION | {"seen_by_weights": 1, "digest": "cd"},
            "refused": [{"split": "train", "name": "q.png", "reason": "truncated"}],
            "notes": ["a note"],
            "warnings": ["w"],
            "asked": {"strategy": "auto"},
            "race": {"seconds": 1.5},
        },
    )


def test_a_run_from_scratch_without_a_test():
    validation = ValidationMetrics(SCORED)
    run = RunMetrics("net", "from-scratch", 2.5, 100.0, TrainingMetrics(TUNE, (TUNE,), None), validation, None, {}, (), ())
    assert same(
        run,
        {
            "backbone": "net",
            "strategy": "from-scratch",
            "seconds": 2.5,
            "peak_memory_mb": 100.0,
            "headline": HEADLINE | {"source": "validation"},
            "epochs": 3,
            "best_epoch": 2,
            "kept_phase": "tune",
            "phases": PHASES[1:],
            "fitted_on": ["train"],
            "validation": EVALUATION | {"cross_validated": None},
            "test": None,
            "refused": [],
            "notes": [],
            "warnings": [],
        },
    )


def test_the_text_of_a_result_is_short_and_has_its_main_figure():
    assert len(repr(SCORED)) < 100
    assert f"{SCORED.accuracy:.4f}" in repr(SCORED)
    headline = {"accuracy": 0.9, "interval": [0.8, 0.95], "images": 40, "source": "test"}
    values = {"strategy": "finetune", "backbone": "net", "headline": headline}
    assert "0.9000" in repr(Run(Path("run"), values))
    chosen = repr(Run(Path("run"), values | {"choice": {"text": "It won because"}}))
    assert chosen.splitlines()[1] == "It won because"
