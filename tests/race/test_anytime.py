"""Covers the anytime run: a first answer is saved, only better results replace it, and the budget ends every stage."""

from dataclasses import replace

import numpy as np
import pytest

import crossroads
import tiny_networks
from crossroads import artifact
from crossroads.advice import baselines, warm_start
from crossroads.advice.backbone_evidence import sample_pass
from crossroads.advice.estimate import Estimate
from crossroads.data.loading import digests_of
from crossroads.data.partition import load_and_split
from crossroads.errors import ArtifactError, RecipeError, TrainingError
from crossroads.features.bodies import body_of
from crossroads.features.engine import Engine
from crossroads.features.lookup import Lookup, SinglePass
from crossroads.networks.construct import choose
from crossroads.progress import Silent
from crossroads.race import affordable, anytime, first
from crossroads.race import named as module
from crossroads.race.affordable import part_of
from crossroads.race.records import RaceCandidate
from crossroads.recipe import Recipe
from crossroads.run.clock import Clock
from crossroads.strategies import resolve_recipe
from killing import Killed
from pictures import stripes
from refusals import refused
from watchers import Notes

pytestmark = pytest.mark.core
SPLIT = {"validation": 0.25, "test_fraction": 0.2}


@pytest.fixture(scope="module", name="tiny")
def _tiny():
    return tiny_networks.tiny()


@pytest.fixture(scope="module")
def pictures():
    return stripes(120, classes=("level", "slanting", "upright"), size=16)


@pytest.fixture(autouse=True)
def _quick(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSROADS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(baselines, "SHORT_PASSES", 0)  # no image is left for a short training
    monkeypatch.setattr(warm_start, "SECONDS", 0.0)


class AtNote(Notes):
    """Raises an exception at the first note with a code."""

    def __init__(self, code, error):
        super().__init__()
        self.code, self.error = code, error

    def note(self, text):
        super().note(text)
        if getattr(text, "code", "") == self.code:
            self.code = ""
            raise self.error


def fit(pictures, tiny, out, **options):
    return crossroads.fit(pictures, out=out, backbone=tiny, weights="own", epochs=1, batch_size=16, **SPLIT, **options)


def test_a_kill_after_the_first_answer_leaves_a_valid_artifact_that_resume_improves(pictures, tiny, tmp_path, monkeypatch):
    choose_candidates, raced = anytime.choose_candidates, ("feature-extraction", "early-features", "finetune")

    def fewer(*given):
        plan = choose_candidates(*given)
        return replace(plan, candidates=tuple(one for one in plan.candidates if one.recipe.strategy in raced))

    monkeypatch.setattr(anytime, "choose_candidates", fewer)
    out = tmp_path / "run"
    with pytest.raises(Killed):
        fit(pictures, tiny, out, watcher=AtNote("race-started", Killed()))
    interim = artifact.read_metrics(out)
    assert interim["interim"]
    assert interim["strategy"] in ("feature-extraction", "early-features")
    assert interim["test"]["n"] == 24
    assert len(crossroads.load(out).predict([pictures[0][0]])) == 1
    with refused("unfinished-run", TrainingError):
        fit(pictures, tiny, out)
    again = fit(pictures, tiny, out, resume=True)
    assert "interim" not in artifact.read_metrics(out)
    assert "interim" not in again.metrics
    assert {row["strategy"] for row in again.metrics["race"]["runs"]} >= {"feature-extraction", "early-features", "finetune"}
    assert again.metrics["race"]["runs"][0]["strategy"] == interim["strategy"]  # only a better head replaces it
    with refused("artifact-exists", ArtifactError):
        fit(pictures, tiny, out)


def test_ctrl_c_during_the_evidence_keeps_the_first_answer(pictures, tiny, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(anytime, "choose_candidates", interrupted)
    watcher = Notes()
    run = fit(pictures, tiny, tmp_path / "run", watcher=watcher)
    [row] = run.metrics["race"]["runs"]
    assert row["won"]
    assert run.metrics["strategy"] == row["strategy"]
    assert "interim" not in run.metrics
    assert "advice" not in run.metrics
    assert run.metrics["choice"]["reason"] == "race-stopped"
    assert run.metrics["choice"]["text"] in repr(run)
    assert artifact.open_verified(run.artifact).strategy == row["strategy"]


def test_the_end_of_the_budget_during_the_evidence_keeps_the_first_answer(pictures, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(anytime._Anytime, "_can_improve", lambda self, answer: True)
    watcher = Notes()
    run = fit(pictures, tiny, tmp_path / "run", watcher=watcher, budget=0.01)
    assert "budget-ended" in {note.code for note in watcher.said}
    assert run.metrics["choice"]["reason"] == "budget-ended"
    assert len(run.metrics["race"]["runs"]) == 1


def test_a_budget_too_short_for_all_images_uses_a_part_of_each_split_and_says_so(pictures, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(affordable, "IMAGES_PER_SECOND", 0.0)
    monkeypatch.setattr(first, "seconds_per_image", lambda *_: 1.0)
    watcher = Notes()
    run = fit(pictures, tiny, tmp_path / "run", watcher=watcher, budget=100.0)  # about 60 of 120 images
    said = {note.code: note for note in watcher.said}
    part = said["part-of-images"].figures
    assert 20 < part["used"] < part["total"] == 66
    assert 5 < run.metrics["test"]["n"] < 24
    assert said["part-of-test"].figures["total"] == 24
    assert artifact.open_verified(run.artifact).facts["data"]["splits"]["train"]["n"] == part["used"]
    assert len(run.metrics["race"]["runs"]) == 1


def named(pictures, tiny, out, strategy, **options):
    return crossroads.fit(pictures, out=out, strategy=strategy, backbone=tiny, weights="own", **SPLIT, **options)


@pytest.mark.parametrize("strategy", ["feature-extraction", "early-features"])
def test_a_named_frozen_strategy_uses_the_images_that_there_is_time_for(pictures, tiny, tmp_path, monkeypatch, strategy):
    monkeypatch.setattr(affordable, "IMAGES_PER_SECOND", 0.0)
    monkeypatch.setattr(module, "seconds_of_pass", lambda *_: 1.0)
    watcher = Notes()
    run = named(pictures, tiny, tmp_path / "run", strategy, watcher=watcher, budget=100.0)  # about 60 of 120 images
    said = {note.code: note for note in watcher.said}
    part = said["part-of-images"].figures
    assert 20 < part["used"] < part["total"] == 66
    assert 5 < run.metrics["test"]["n"] < 24
    assert artifact.open_verified(run.artifact).facts["data"]["splits"]["train"]["n"] == part["used"]


def test_the_same_fraction_gives_the_same_part_of_the_images(pictures):
    partition = load_and_split(pictures, None, Recipe(**SPLIT), Silent())
    (used, test_images), (again, _) = (part_of(partition, 0.5, 20.0, Silent()) for _ in range(2))
    assert (used.train.indices.tolist(), used.validation.indices.tolist()) == (
        again.train.indices.tolist(),
        again.validation.indices.tolist(),
    )
    assert test_images == 12
    assert part_of(partition, 1.0, None, Silent()) == (partition, None)


def test_a_budget_too_short_for_an_epoch_of_a_named_strategy_is_refused_at_once(pictures, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "epoch_seconds", lambda *_: 950.0)
    with refused("budget-too-short", RecipeError, field="budget"):
        named(pictures, tiny, tmp_path / "run", "finetune", budget=300.0)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("shortens", "left_out", "least"), [(True, 259.9, "300"), (False, 259.9, "1,000"), (True, 260.0, None)])
def test_the_least_budget_has_room_for_one_epoch_or_for_those_that_the_user_set(shortens, left_out, least):
    """40 s are spent. The fixed work takes 160 s and an epoch 100 s, and there are 8."""
    recipe = Recipe(strategy="finetune", backbone="b", epochs=8)
    candidate = RaceCandidate(recipe, Estimate(0.5, 0.1, 0.9), 960.0, 100.0, shortens)
    clock = Clock(0.0, budget=40.0 + left_out, now=lambda: 40.0)
    if least is None:
        module._require_time(candidate, clock.budget, clock)
        return
    with refused("budget-too-short", RecipeError) as found:
        module._require_time(candidate, clock.budget, clock)
    assert f"about {least} s" in found.value.received


def test_a_budget_that_ends_within_the_first_epoch_of_a_named_strategy_leaves_an_artifact(pictures, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_require_time", lambda *_: None)
    watcher = Notes()
    run = named(pictures, tiny, tmp_path / "run", "warm-start", watcher=watcher, budget=0.001, epochs=4, batch_size=16)
    said = {note.code: note.figures for note in watcher.said}
    assert said["epoch-shortened"] == {"batches": 1, "total": 5}
    assert run.metrics["best_epoch"] == 1
    assert artifact.open_verified(run.artifact).strategy == "warm-start"


def test_the_first_answer_computes_the_features_of_each_image_once(pictures, tiny, tmp_path, monkeypatch):
    computed = []
    stream = Engine.stream

    def counted(self, chunks):
        for values in stream(self, chunks):
            computed.append(len(values))
            yield values

    monkeypatch.setattr(Engine, "stream", counted)
    monkeypatch.setattr(anytime._Anytime, "_can_improve", lambda self, answer: False)
    run = fit(pictures, tiny, tmp_path / "run")
    splits = artifact.open_verified(run.artifact).facts["data"]["splits"]
    assert sum(computed) == splits["train"]["n"] + splits["validation"]["n"]


def test_a_single_pass_stores_what_separate_passes_compute(pictures, tiny, tmp_path, monkeypatch):
    choice = choose(tiny)
    asked = Recipe(strategy="feature-extraction", backbone=choice.record.name, weights="own", image_size=16)
    recipe = resolve_recipe(asked, choice.record, images=120, image_size=16)
    body = body_of(choice, 16, "own", 0, lambda *_: None)
    early, end = body.cuts[0], body.end
    dataset = crossroads.read(pictures)

    def lookups():
        gridded = replace(recipe, cut=early.name, pooling="average-2")
        return [
            Lookup(body.until(end, "average"), "tiny", recipe, end.name, Silent()),
            Lookup(body.until(early, "average-2"), "tiny", gridded, early.name, Silent()),
        ]

    stored = SinglePass(body, lookups()).fill(dataset, "features")
    assert stored.computed == len(dataset)
    assert (stored.digests == digests_of(dataset)).all()
    together = [lookup.features(dataset, "features") for lookup in lookups()]
    assert [one.computed for one in together] == [0, 0]
    monkeypatch.setenv("CROSSROADS_CACHE", str(tmp_path / "other"))
    for lookup, one in zip(lookups(), together, strict=True):
        alone = lookup.features(dataset, "features")
        assert alone.computed == len(dataset)
        np.testing.assert_allclose(one.features[:], alone.features[:], rtol=1e-4, atol=1e-5)
    assert sample_pass(body, choice, recipe, Silent()).fill(dataset, "sample").computed == len(dataset)  # more depths


def test_a_clock_counts_earlier_processes():
    clock = Clock(100.0, earlier=20.0, budget=60.0, now=lambda: 130.0)
    assert (clock.spent, clock.left) == (50.0, 10.0)
    assert Clock(100.0, now=lambda: 130.0).left == float("inf")
