"""Covers the comparison of runs: image by image with the same test, by intervals otherwise."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import tiny_artifact
from crossroads import artifact
from crossroads.artifact import HeldOut
from crossroads.errors import ArtifactError
from crossroads.evaluation import Z, paired_difference
from crossroads.report.compare import aligned, compare_runs
from crossroads.report.info import info_of
from refusals import refused
from report_subjects import predictions


def scores(correct):
    return {
        "n": len(correct),
        "accuracy": float(correct.mean()),
        "accuracy_interval": [0.4, 0.8],
        "balanced_accuracy": 0.5,
        "digest": "same",
    }


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    made, _ = predictions(k=5, n=40, accuracy=0.6)
    metrics = {"seconds": 3.0, "validation": scores(made.correct), "test": scores(made.correct), "warnings": ["a warning"]}
    folder = tmp_path_factory.mktemp("runs") / "first"
    with artifact.draft(folder, tiny_artifact.contents()) as draft:
        draft.finish(metrics, HeldOut(made, None))
    return folder


def second(first, tmp_path, held_out, **test):
    """Returns a copy of the first run with other predictions."""
    metrics = artifact.read_metrics(first)
    metrics["test"] |= test
    run = tmp_path / "second"
    shutil.copytree(first, run)
    (run / artifact.PARTIAL).mkdir()
    artifact._draft.write_held_out(run / artifact.PARTIAL / artifact.HELD_OUT, held_out)
    (run / artifact.PARTIAL / artifact.HELD_OUT).replace(run / artifact.HELD_OUT)
    (run / artifact.PARTIAL).rmdir()
    facts = json.loads((run / artifact.MANIFEST).read_text())
    del facts["digest"]
    facts["files"][artifact.HELD_OUT] = artifact._draft.file_record(run / artifact.HELD_OUT)
    (run / artifact.MANIFEST).write_text(artifact._draft.manifest_text(facts))
    artifact.amend(run, metrics)
    return run


def shuffled_and_better(made):
    """Returns the predictions in another order, with three mistakes corrected."""
    order = np.random.default_rng(1).permutation(len(made))
    top = made.top_labels.copy()
    wrong = np.flatnonzero(~made.correct)[:3]
    top[wrong, 0] = made.labels[wrong]
    columns = {name: getattr(made, name)[order] for name in ("names", "labels", "digests", "top_probabilities")}
    return replace(made, **columns, top_labels=top[order])


def test_the_same_test_is_compared_image_by_image(first, tmp_path):
    made = artifact.read_held_out(first).test
    better = shuffled_and_better(made)
    run = second(first, tmp_path, HeldOut(better, None))
    (difference,) = compare_runs([first, run]).differences
    expected, error = paired_difference(np.r_[np.ones(3), np.zeros(37)].astype(bool), np.zeros(40, bool))
    assert (difference.better, difference.worse, difference.images) == (3, 0, 40)
    assert difference.difference == pytest.approx(expected)
    assert difference.interval == pytest.approx((expected - Z * error, expected + Z * error))
    assert "may be equally good" in compare_runs([first, run]).conclusions()[0]


def test_another_test_is_compared_by_intervals_only(first, tmp_path):
    made = artifact.read_held_out(first).test
    run = second(first, tmp_path, HeldOut(made, None), digest="other")
    compared = compare_runs([first, run])
    assert compared.differences == (None,)
    assert "not tested on the same images" in compared.conclusions()[0]


def test_rows_are_aligned_by_digest_and_label():
    made, _ = predictions(n=30)
    other = shuffled_and_better(made)
    mine, its = aligned(made, other)
    assert np.array_equal(made.digests[mine], other.digests[its])
    assert aligned(made, replace(other, labels=(other.labels + 1) % 5)) is None
    assert aligned(made, predictions(n=29)[0]) is None


def test_one_run_is_refused(first):
    with refused("too-few-runs", ArtifactError):
        compare_runs([first])


def test_a_comparison_is_json(first):
    values = json.loads(json.dumps(compare_runs([first, first]).to_json()))
    assert [run["accuracy"] for run in values["runs"]] == [artifact.read_metrics(first)["test"]["accuracy"]] * 2
    assert values["differences"][0]["difference"] == 0


def test_info_describes_an_artifact_in_a_screenful(first):
    found = info_of(first)
    assert found.headline["source"] == "test"
    assert found.classes == tiny_artifact.CLASSES
    assert found.files[artifact.HELD_OUT] > 0
    assert found.warnings == ("a warning",)
    assert len(list(found.lines())) < 20
    json.dumps(found.to_json())
