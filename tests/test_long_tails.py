"""Covers long-tailed data from end to end: small classes are trained on but not tested, and are marked as such."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

import crossroads
from crossroads.errors import DataError, SplitError
from crossroads.report.console import print_run
from tiny_networks import SIZE, tiny
from watchers import Notes

COUNTS = {"one": 1, "uno": 1, "two": 2, "due": 2, "three": 3, "four": 4, "many": 9, "most": 16}


def colours(counts=COUNTS, seed=0):
    """Returns noisy images of one colour per class, with their labels."""
    rng = np.random.default_rng(seed)
    base = {name: rng.integers(0, 256, 3) for name in counts}
    labels = np.repeat(list(counts), list(counts.values()))
    noise = rng.normal(0, 12, (len(labels), SIZE, SIZE, 3))
    return (np.stack([base[name] for name in labels])[:, None, None] + noise).clip(0, 255).astype(np.uint8), labels


@pytest.fixture(scope="module")
def own():
    return tiny()


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("CROSSROADS_CACHE", str(tmp_path_factory.getbasetemp() / "tails-cache"))


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "feature-extraction"},
        {"strategy": "from-scratch", "backbone": "quiz-cnn", "image_size": 16, "epochs": 1, "class_weights": "balanced"},
    ],
    ids=["solved head", "trained network"],
)
def test_every_class_is_trained_and_small_ones_are_marked_as_not_tested(options, own, tmp_path, capsys):
    watcher, images = Notes(), colours()
    usual = {"weights": "own", "backbone": own} if options["strategy"] == "feature-extraction" else {}
    run = crossroads.fit(images, out=tmp_path / "run", watcher=watcher, **usual, **options)
    said = [note for note in watcher.said if "too few images" in note]
    assert len(said) == 1
    assert all(repr(name) in said[0] for name in ("due", "one", "two", "uno"))
    assert said[0] in run.metrics["notes"]
    assert set(run.metrics["validation"]["untested_classes"]) == {"one", "uno", "two", "due"}
    assert set(run.metrics["test"]["untested_classes"]) == {"one", "uno"}
    support = {score["name"]: score["support"] for score in run.metrics["test"]["per_class"]}
    assert support == {name: 0 if name in ("one", "uno") else max(1, round(0.1 * n)) for name, n in COUNTS.items()}
    assert set(crossroads.load(run.artifact).classes) == set(COUNTS)
    print_run(run)
    assert "classes without test images: 2 of 8" in capsys.readouterr().out


def test_tracks_of_a_small_class_stay_whole(own, tmp_path):
    images, labels = colours({"a": 30, "b": 30, "c": 30})
    tracks = np.concatenate([np.arange(30) // 3, 10 + np.arange(30) // 15, np.full(30, 12)])
    estimator = crossroads.ImageClassifier("quiz-cnn", image_size=16, epochs=1).fit(images, labels, groups=tracks)
    scores = estimator.run_.metrics["validation"]
    assert {score["name"]: score["support"] for score in scores["per_class"]} == {"a": 3, "b": 15, "c": 0}
    assert scores["untested_classes"] == ["c"]
    assert set(estimator.classes_) == {"a", "b", "c"}


def test_advice_on_a_long_tail_is_given(own, monkeypatch):
    from crossroads.advice import baselines, warm_start

    monkeypatch.setattr(baselines, "SHORT_EPOCHS", (2, 2))
    monkeypatch.setattr(warm_start, "SECONDS", 0.01)
    watcher = Notes()
    advice = crossroads.advise(colours(), backbones=[own], epochs=2, watcher=watcher)
    assert sum("too few images" in note for note in watcher.said) == 1
    assert (advice.evidence.size.classes, advice.evidence.size.smallest_class) == (8, 1)
    assert all(0 <= candidate.accuracy.value <= 1 for candidate in advice.ranked)


def test_strict_refuses_classes_that_are_too_small(own, tmp_path):
    with pytest.raises(SplitError, match=r"at least 3 images") as caught:
        crossroads.fit(colours(), out=tmp_path / "run", backbone=own, weights="own", strategy="feature-extraction", strict=True)
    assert all(repr(name) in caught.value.received for name in ("due", "one", "two", "uno"))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("counts", "test_fraction", "validated"),
    [({"a": 3, "b": 3}, 0.1, 4), ({"a": 2, "b": 2}, 0.0, 4), ({"a": 1, "b": 2}, 0.0, 1), ({"a": 1, "b": 3}, 0.1, 1)],
)
def test_the_smallest_possible_data_sets_are_trained(counts, test_fraction, validated, own, tmp_path):
    run = crossroads.fit(
        colours(counts),
        out=tmp_path / "run",
        backbone=own,
        weights="own",
        strategy="feature-extraction",
        test_fraction=test_fraction,
    )
    assert run.metrics["validation"]["n"] == validated


@pytest.mark.parametrize(("counts", "test_fraction"), [({"a": 1, "b": 1}, 0.0), ({"a": 2, "b": 2, "c": 1}, 0.1)])
def test_data_without_a_validation_image_is_refused(counts, test_fraction, own, tmp_path):
    with pytest.raises(SplitError, match="no images are left for validation"):
        crossroads.fit(colours(counts), out=tmp_path / "run", backbone=own, weights="own", test_fraction=test_fraction)


def test_a_class_with_test_images_only_is_refused_before_decoding(own, tmp_path):
    for name, count in (("train/a", 6), ("train/b", 6), ("test/a", 2), ("test/b", 2), ("test/unseen", 2)):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"{number}.png").write_bytes(b"never opened")
    with pytest.raises(DataError, match=r"each class needs a training image; received none of 'unseen'"):
        crossroads.fit(tmp_path / "data", out=tmp_path / "run", backbone=own, weights="own")


def test_an_estimator_whose_fit_fails_is_not_fitted():
    estimator = crossroads.ImageClassifier("quiz-cnn", image_size=16, epochs=1)
    with pytest.raises(SplitError):
        estimator.fit(*colours({"a": 1, "b": 1}))
    with pytest.raises(NotFittedError):
        estimator.predict(colours()[0])
