"""Covers what a report says: the verdict, the next step, the worst classes, confused pairs and calibration."""

from __future__ import annotations

import numpy as np
import pytest

from crossroads.artifact import Predictions
from crossroads.data.findings import Finding
from crossroads.evaluation import wilson_interval
from crossroads.report import facts

CLASSES = ("a", "b", "c", "d")
MATRIX = np.array([[9, 1, 0, 0], [5, 5, 0, 0], [0, 0, 20, 0], [0, 0, 0, 0]])
SCORES = {"accuracy": 0.85, "accuracy_interval": [0.8, 0.89], "n": 1200, "confusion_matrix": MATRIX.tolist()}


def predictions(labels, predicted, confidence, groups=None):
    n = len(labels)
    top = np.stack([predicted, (np.array(predicted) + 1) % 4], axis=1).astype(np.int32)
    shown = np.stack([confidence, 1 - np.array(confidence)], axis=1).astype(np.float32)
    digests = np.arange(16 * n, dtype=np.uint8).reshape(n, 16)
    names = np.array([f"{row}.png" for row in range(n)])
    return Predictions(names, np.array(labels, np.int32), digests, top, shown, groups)


def test_the_worst_class_comes_first_and_untested_ones_last():
    rows = facts.class_rows(MATRIX, CLASSES)
    assert [row.name for row in rows] == ["b", "a", "c", "d"]
    assert (rows[0].recall, rows[0].images, rows[0].mistaken_for, rows[0].mistakes) == (0.5, 10, "a", 5)
    assert rows[0].precision == pytest.approx(5 / 6)
    assert rows[0].interval == wilson_interval(5, 10)
    assert (rows[2].mistaken_for, rows[2].mistakes) == ("", 0)
    assert (rows[3].recall, rows[3].interval, rows[3].precision) == (None, None, None)


def test_groups_make_the_interval_of_a_class_wider():
    labels = [0] * 10
    grouped = predictions(labels, labels, [0.9] * 10, np.arange(10) // 5)
    matrix = np.diag([10, 0, 0, 0])
    assert facts.class_rows(matrix, CLASSES, grouped)[0].interval == wilson_interval(2, 2)
    assert facts.class_rows(matrix, CLASSES)[0].interval == wilson_interval(10, 10)


def test_confused_pairs_are_ordered_by_their_images():
    assert facts.confused_pairs(MATRIX) == [(1, 0, 5, 0.5), (0, 1, 1, 0.1)]
    assert facts.confused_pairs(np.diag([3, 4])) == []


def test_calibration_compares_confidence_and_accuracy():
    made = predictions([0, 0, 1, 1], [0, 1, 1, 1], [0.95, 0.93, 0.55, 1.0])
    low, high = facts.reliability(made)
    assert (low.images, low.low, low.high, low.accuracy) == (1, 0.5, 0.6, 1.0)
    assert (high.images, high.accuracy) == (3, pytest.approx(2 / 3))
    assert high.confidence == pytest.approx(0.96, abs=1e-6)


def test_galleries_are_ordered_by_confidence():
    made = predictions([0, 0, 1, 1, 2], [1, 0, 0, 1, 0], [0.6, 0.9, 0.8, 0.5, 0.7])
    assert facts.confident_mistakes(made, 2) == [2, 4]
    assert facts.unsure_hits(made, 5) == [3, 1]


def test_cells_with_mistakes_come_first_and_the_limits_hold():
    made = predictions([0, 0, 0, 1, 1], [1, 1, 0, 1, 1], [0.6, 0.9, 0.8, 0.5, 0.7])
    assert facts.cell_rows(made, each=2, most=10) == {(0, 1): [1, 0], (1, 1): [4, 3], (0, 0): [2]}
    assert facts.cell_rows(made, each=1, most=2) == {(0, 1): [1], (1, 1): [4]}


def test_the_examples_of_a_finding_are_found_by_their_names():
    made = predictions([0, 0, 1], [0, 0, 1], [0.9, 0.8, 0.7])
    examples = ("0.png (a) = 2.png (b)", "1.png (a)", "gone.png (a)", "b (12)")
    assert facts.example_rows(Finding("code", "error", "summary", 2, examples, "hint"), made) == [0, 2, 1]


def test_the_verdict_names_accuracy_interval_images_strategy_and_backbone():
    text = facts.verdict(SCORES, "test images", "finetune", "resnet50").replace("\N{NO-BREAK SPACE}", " ")
    assert text == "Finetune on resnet50 classifies 85.0 % of 1,200 test images correctly (95 % interval: 80.0 % to 89.0 %)."


@pytest.mark.parametrize(
    ("changes", "gain", "named", "code"),
    [
        ({"seen_in_training": 3}, 0.1, True, "remove-seen-images"),
        ({"accuracy_interval": [0.6, 0.9]}, 0.1, True, "test-on-more-images"),
        ({}, 0.1, True, "look-at-a-pair"),
        ({"confusion_matrix": np.eye(4, dtype=int).tolist()}, 0.02, True, "collect-images"),
        ({"confusion_matrix": np.eye(4, dtype=int).tolist()}, 0.001, True, "compare-strategies"),
        ({"confusion_matrix": np.eye(4, dtype=int).tolist()}, None, False, "look-at-mistakes"),
        ({"accuracy": 1.0}, None, True, "use-it"),
    ],
)
def test_the_next_step_follows_from_the_scores(changes, gain, named, code):
    assert facts.next_step(SCORES | changes, CLASSES, gain, named=named).code == code
