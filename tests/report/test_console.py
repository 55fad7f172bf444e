"""Covers the results of the commands as plain lines."""

import numpy as np

from crossroads.evaluation import evaluate
from crossroads.predictor import Prediction, Ranked
from crossroads.report.console import print_evaluation, print_lines, print_predictions


def confident(labels, k):
    p = np.full((len(labels), k), 0.1 / (k - 1))
    p[np.arange(len(labels)), labels] = 0.9
    return p


def test_an_evaluation_begins_with_its_accuracy(capsys):
    print_evaluation(evaluate(confident([0, 1, 0, 1], 6), [0, 1, 1, 1], ["stop", "a long class name", "c", "d", "e", "f"]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "accuracy: 0.7500 (0.301 to 0.954), 4 images"
    assert [line.partition(":")[0] for line in lines[2:6]] == ["balanced accuracy", "top-3 accuracy", "top-5 accuracy", "loss"]
    assert "classes without images: 4 of 6, left out of the balanced accuracy" in lines
    row = next(line for line in lines if line.startswith("f "))
    assert row.split() == ["f", "-", "-", "-", "0", "not", "tested"]
    assert lines[-1].split() == ["row", "2", "a", "long", "class", "name", "stop", "0.9000"]


def test_names_are_words_and_numbers_are_rounded(capsys):
    print_lines([("peak_memory_mb", 378), ("loss", -0.00001)])
    assert capsys.readouterr().out == "peak memory mb: 378\nloss: 0.0000\n"


def test_a_prediction_is_one_line(capsys):
    print_predictions([Prediction("a.png", (Ranked("8", 0.9886), Ranked("5", 0.0023)))])
    assert capsys.readouterr().out == "a.png: 8 0.9886, 5 0.0023\n"
