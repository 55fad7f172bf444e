"""From images to advice, and from advice to a race, with a tiny network."""

import json
from dataclasses import replace

import numpy as np
import pytest

import crossroads
import tiny_networks
from crossroads import artifact
from crossroads.advice import baselines, sample, warm_start
from crossroads.advice import recommend as module
from crossroads.advice.cost import VALIDATING
from crossroads.advice.estimate import Estimate
from crossroads.advice.expectation import Setting, expected
from crossroads.advice.profile import Depth
from crossroads.advice.reasons import reasons_for
from crossroads.advice.size import USUAL_SLOPE
from crossroads.artifact._files import OPTIONAL
from crossroads.errors import BackboneError, RecipeError, SplitError
from crossroads.networks.weights import installed
from crossroads.progress import Silent
from crossroads.race import anytime, decisions
from crossroads.recipe import Recipe
from crossroads.strategies import STRATEGIES, strategy
from pictures import stripes
from refusals import refused
from watchers import Notes

pytestmark = pytest.mark.core
SPLIT = {"validation": 0.25, "test_fraction": 0.2}
SIZE = 16


@pytest.fixture(autouse=True)
def _quick(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("CROSSROADS_CACHE", str(tmp_path_factory.getbasetemp() / "advice-cache"))
    monkeypatch.setattr(baselines, "SHORT_PASSES", 0)  # no image is left for a short training
    monkeypatch.setattr(warm_start, "SECONDS", 0.0)


def short_trainings(patch, seconds=30.0):
    """Lets the advice train for a few epochs, the small network and a warm start, which takes seconds."""
    patch.setattr(baselines, "SHORT_PASSES", 12_000)
    patch.setattr(baselines, "SHORT_EPOCHS", (2, 2))
    patch.setattr(warm_start, "SECONDS", seconds)


@pytest.fixture(scope="module", name="tiny")
def _tiny():
    return tiny_networks.tiny()


@pytest.fixture(scope="module")
def pictures():
    return stripes(120, classes=("level", "slanting", "upright"), size=SIZE)


@pytest.fixture(scope="module")
def advice(pictures, tiny, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSROADS_CACHE", str(tmp_path_factory.getbasetemp() / "advice-cache"))
        short_trainings(patch)
        return crossroads.advise(pictures, backbones=[tiny], epochs=4, **SPLIT)


def by_code(reasons):
    """Returns the reasons by their codes."""
    return {reason.code: reason for reason in reasons}


def test_every_strategy_is_ranked_with_its_time_and_memory(advice):
    assert {one.recipe.strategy for one in advice.ranked} == {record.name for record in STRATEGIES}
    for one in advice.ranked:
        assert 0 <= one.accuracy.low <= one.accuracy.value <= one.accuracy.high <= 1
        assert one.seconds > 0
        assert one.memory_mb > 100
        assert not one.obstacle
        assert one.recipe.image_size
    early = next(one for one in advice.ranked if one.recipe.strategy == "early-features")
    assert early.recipe.cut in ("relu1", "relu2")
    assert [one.recipe.epochs for one in advice.ranked if not strategy(one.recipe.strategy).frozen] == [4] * 4


def test_only_training_images_are_measured(pictures, tiny, advice, monkeypatch):
    short_trainings(monkeypatch)
    images, labels = pictures
    indices = held_out(images, labels)
    hidden = images.copy()
    hidden[indices] = np.random.default_rng(0).integers(0, 256, hidden[indices].shape)
    again = crossroads.advise((hidden, labels), backbones=[tiny], epochs=4, **SPLIT)
    assert advice.evidence.size == again.evidence.size
    assert advice.evidence.profiles == again.evidence.profiles
    assert advice.evidence.curve == again.evidence.curve
    assert advice.evidence.baselines.pixels == again.evidence.baselines.pixels
    assert advice.evidence.baselines.majority == again.evidence.baselines.majority
    assert advice.evidence.baselines.small_network.accuracy == again.evidence.baselines.small_network.accuracy
    assert advice.evidence.warm_start.accuracy == again.evidence.warm_start.accuracy
    assert advice.evidence.warm_start.epochs == again.evidence.warm_start.epochs


def test_a_reason_is_given_if_another_strategy_than_that_of_the_case_comes_first(advice):
    explained = set()
    for number in (1, 2, 3, 4):
        reasons = by_code(reasons_for(advice.evidence, replace(advice.case, number=number), advice.ranked, None))
        if reason := reasons.get("choice-differs-from-case"):
            assert (reason.figures["case"], reason.figures["first"]) == (number, advice.best.name)
            explained.add(number)
    own_case = next(record.case[0] for record in STRATEGIES if record.name == advice.best.recipe.strategy)
    assert explained == {1, 2, 3, 4} - {int(own_case)}


def test_the_expected_accuracy_uses_the_measured_slope_of_the_learning_curve(advice):
    size, curve = advice.evidence.size, advice.evidence.curve
    assert curve.slope != USUAL_SLOPE
    for one in advice.ranked:
        assert one.accuracy == expected(one.recipe.strategy, one.bases, Setting(size.images, size.effective_per_class, curve.slope))


def test_a_short_warm_start_of_the_best_network_is_part_of_the_evidence(advice):
    short = advice.evidence.warm_start
    assert (short.strategy, short.backbone) == ("warm-start", "own:tiny")
    start = next(one for one in advice.ranked if one.recipe.strategy == "warm-start")
    assert [base.kind for base in start.bases] == ["probe", "short training"]
    assert start.bases[1].accuracy == short.accuracy
    kinds = {one.recipe.strategy: {base.kind for base in one.bases} for one in advice.ranked if one is not start}
    assert kinds.pop("from-scratch") == {"probe", "short training"}
    assert set(map(frozenset, kinds.values())) == {frozenset({"probe"})}
    validation = 66 * SPLIT["validation"] / (1 - sum(SPLIT.values()))
    assert start.epoch_seconds == pytest.approx((66 + VALIDATING * validation) * short.seconds_per_image)  # measured, not estimated
    early = next(one for one in advice.ranked if one.recipe.strategy == "finetune-early")
    assert early.epoch_seconds < start.epoch_seconds  # a part of the network
    figures = by_code(advice.reasons)["short-warm-start"].figures
    assert figures["backbone"] == "own:tiny"
    assert (figures["epochs"], figures["images"], figures["accuracy"]) == (short.epochs, short.images, short.accuracy.value)


def held_out(images, labels):
    """Returns the row indices of validation and test."""
    from crossroads.data.readers import read
    from crossroads.data.splits import split

    parts = split(read((images, labels)), validation=0.25, test=0.2, seed=0)
    return np.concatenate([parts.validation.indices, parts.test.unseal().indices])


def test_the_reasons_cover_size_depth_similarity_more_images_and_baselines(advice):
    reasons = by_code(advice.reasons)
    assert {"size", "random-control", "similarity", "more-images", "baselines"} < set(reasons)
    assert any(code.startswith("profile-") for code in reasons)
    assert reasons["size"].figures == {"images": 66, "classes": 3, "per_class": 22.0, "kind": "small"}
    assert reasons["baselines"].figures["majority"] == pytest.approx(1 / 3)
    assert reasons["baselines"].figures["small_network"] == advice.evidence.baselines.small_network.accuracy.value
    json.dumps([reason.figures for reason in advice.reasons], allow_nan=False)


def test_advice_has_a_json_form(advice):
    value = json.loads(json.dumps(advice.to_json(), allow_nan=False))
    assert (value["case"]["number"], value["case"]["title"]) == (advice.case.number, advice.case.title)
    assert len(value["evidence"]["profiles"][0]["depths"]) == 3
    assert value["evidence"]["warm_start"]["images"] == advice.evidence.warm_start.images
    assert [row["strategy"] for row in value["ranked"]] == [one.recipe.strategy for one in advice.ranked]


def test_a_budget_that_is_too_small_for_any_candidate_is_a_reason_with_the_least_time(pictures, tiny):
    advice = crossroads.advise(pictures, backbones=[tiny], budget=0.5, **SPLIT)
    assert {(one.obstacle.code, one.obstacle.figures["budget"]) for one in advice.ranked} == {("over-budget", 0.5)}
    least = round(min(one.seconds for one in advice.ranked), 1)
    assert by_code(advice.reasons)["budget-too-small"].figures == {"budget": 0.5, "least": least}


def test_the_short_training_stops_after_its_fraction_of_the_budget(pictures, tiny, monkeypatch):
    short_trainings(monkeypatch, seconds=0.01)
    monkeypatch.setattr(baselines, "SHORT_EPOCHS", (6, 6))
    seen = []

    class Stages(Silent):
        def progress(self, stage, done, total):
            if stage == "a short training":
                seen.append((done, total))

    found = crossroads.advise(pictures, backbones=[tiny], budget=1e-3, watcher=Stages(), **SPLIT)
    assert found.evidence.baselines.small_network.epochs == 1
    images = seen[1][0]
    assert seen == [(0, 6 * images), (images, 6 * images), (images, images)]  # one of six epochs, and the end of the stage
    assert found.evidence.warm_start is None


def test_several_backbones_are_compared_and_the_reasons_are_about_that_which_the_case_follows_from(pictures, tiny):
    found = crossroads.advise(pictures, backbones=["quiz-cnn", tiny], weights=["none", "own"], **SPLIT)
    assert {profile.backbone for profile in found.evidence.profiles} == {"own:tiny", "quiz-cnn"}
    random = [one for one in found.ranked if one.recipe.backbone == "quiz-cnn"]
    assert {one.recipe.strategy for one in random} <= {"feature-extraction", "early-features"}  # it is not pretrained
    untrained = replace(found.evidence.profiles[0], backbone="quiz-cnn", similarity=None)
    leading = next(profile for profile in found.evidence.profiles if profile.similarity is not None)
    evidence = replace(found.evidence, profiles=(untrained, leading))
    reasons = by_code(reasons_for(evidence, found.case, found.ranked, None))
    assert {reason.figures["backbone"] for code, reason in reasons.items() if code.startswith("profile-")} == {"own:tiny"}
    assert reasons["similarity"].figures["value"] == leading.similarity.value.value


def test_a_network_that_does_not_fit_into_memory_is_left_out(pictures, tiny, monkeypatch):
    monkeypatch.setattr(module, "memory_limit_mb", lambda text: 700.0)
    watcher = Notes()
    found = crossroads.advise(pictures, backbones=[tiny], watcher=watcher, **SPLIT)
    assert [one.recipe.strategy for one in found.ranked] == ["from-scratch"]
    assert found.case is None
    [note] = [note for note in watcher.said if note.code == "backbone-left-out"]
    assert note.figures["backbone"] == "own:tiny"


def test_equal_images_give_no_more_than_the_accuracy_of_the_largest_class(tiny):
    images = np.full((60, 16, 16, 3), 120, np.uint8)
    found = crossroads.advise((images, np.arange(60) % 3), backbones=[tiny], **SPLIT)
    assert found.evidence.baselines.pixels.value <= 0.4
    assert found.evidence.profiles[0].best.accuracy.value <= 0.4
    assert found.evidence.size.repeated > 0.9


def test_two_classes_are_enough(tiny):
    found = crossroads.advise(stripes(60), backbones=[tiny], **SPLIT)
    assert found.evidence.size.classes == 2


def test_one_image_per_class_cannot_be_split(tiny):
    images, labels = stripes(3, classes=("level", "slanting", "upright"))
    with refused("empty-split", SplitError, received="3 classes of at most 1 image"):
        crossroads.advise((images, labels), backbones=[tiny], **SPLIT)


def test_some_of_very_many_classes_are_sampled_with_a_note(tiny, monkeypatch):
    for name in (sample, module):
        monkeypatch.setattr(name, "MOST_CLASSES", 10)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (160, 16, 16, 3), dtype=np.uint8)
    watcher = Notes()
    found = crossroads.advise((images, np.arange(160) % 40), backbones=[tiny], watcher=watcher, validation=0.25, test_fraction=0.0)
    [note] = [note for note in watcher.said if note.code == "classes-sampled"]
    assert note.figures == {"sampled": 10, "classes": 40}
    assert found.evidence.size.classes == 40
    assert found.evidence.profiles[0].images == 30


@pytest.mark.parametrize(
    ("options", "error", "code"),
    [
        ({"strategy": "finetune"}, RecipeError, "option-without-effect"),
        ({"cut": "0.6"}, RecipeError, "option-needs-strategy"),
        ({"weights": ["a.h5"]}, RecipeError, "option-without-effect"),
        ({"backbones": ["quiz-cnn"], "weights": ["none", "none"]}, RecipeError, "weights-per-backbone"),
        ({"backbones": ["quiz-cn"]}, BackboneError, "unknown-backbone"),
        ({"budget": 0}, RecipeError, "out-of-range"),
    ],
    ids=str,
)
def test_invalid_arguments_are_refused(pictures, options, error, code):
    with refused(code, error):
        crossroads.advise(pictures, **SPLIT, **options)


def test_auto_races_the_advised_candidates_and_keeps_the_advice_in_the_artifact(pictures, tiny, tmp_path):
    run = crossroads.fit(pictures, out=tmp_path / "run", backbone=tiny, weights="own", epochs=4, batch_size=16, budget=0.5, **SPLIT)
    won = run.metrics["strategy"]
    assert won in ("feature-extraction", "early-features")  # even without any time there is a head on frozen features
    assert run.metrics["race"]["runs"][0]["won"]
    assert "advice" not in run.metrics  # there was no time for evidence
    assert run.metrics["validation"]["accuracy"] == pytest.approx(run.metrics["race"]["runs"][0]["validation_accuracy"], abs=1e-6)
    again = crossroads.fit(
        pictures, out=tmp_path / "run", backbone=tiny, weights="own", epochs=4, batch_size=16, budget=0.5, resume=True, **SPLIT
    )
    assert again.metrics == run.metrics
    assert {path.name for path in run.artifact.iterdir()} == {
        *artifact.FILES, *OPTIONAL, *artifact.DOCUMENTS, artifact.MANIFEST
    } - {artifact.KERAS}  # fmt: skip


def test_without_pretrained_networks_the_small_network_is_trained_with_a_note(pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(installed, "find_spec", lambda name: None)
    watcher = Notes()
    run = crossroads.fit(pictures, out=tmp_path / "run", epochs=2, watcher=watcher, **SPLIT)
    assert (run.metrics["strategy"], run.metrics["backbone"]) == ("from-scratch", "small-cnn")
    assert {"weights-unavailable", "nothing-pretrained"} <= {note.code for note in watcher.said}


@pytest.mark.real
def test_advice_and_fit_use_the_installed_network_without_a_flag_or_a_network(pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    watcher = Notes()
    advice = crossroads.advise(pictures, watcher=watcher, **SPLIT)
    assert [profile.backbone for profile in advice.evidence.profiles] == ["efficientnet-lite0"]
    run = crossroads.fit(pictures, out=tmp_path / "run", budget=0.5, watcher=watcher, **SPLIT)
    assert run.metrics["backbone"] == "efficientnet-lite0"
    assert not {"weights-unavailable", "nothing-pretrained"} & {note.code for note in watcher.said}


def test_without_pretrained_networks_a_budget_shortens_the_training(pictures, tmp_path):
    watcher = Notes()
    run = crossroads.fit(pictures, out=tmp_path / "run", weights="none", budget="0.1s", image_size=32, watcher=watcher, **SPLIT)
    [row] = run.metrics["race"]["runs"]
    assert row["epochs"] == 1 < row["usual_epochs"]
    assert (run.metrics["strategy"], run.metrics["epochs"]) == ("from-scratch", 1)
    assert Recipe.from_toml(run.artifact / "recipe.toml").image_size == 32
    assert "nothing-pretrained" in {note.code for note in watcher.said}


def test_requested_random_weights_are_trained_from_scratch(pictures, tmp_path):
    run = crossroads.fit(pictures, out=tmp_path / "run", backbone="quiz-cnn", weights="none", image_size=16, epochs=2, **SPLIT)
    assert (run.metrics["strategy"], run.metrics["backbone"]) == ("from-scratch", "quiz-cnn")


class StopInTune(Silent):
    """Ends the process in the second epoch of finetuning."""

    def epoch(self, record, total):
        if (record.phase, record.epoch) == ("tune", 2):
            raise Broken


class Broken(BaseException):
    """The end of the process."""


def test_the_race_resumes_an_interrupted_run(pictures, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(decisions, "MIN_GAIN", -1.0)  # stripes are easy, so that no candidate could do better
    monkeypatch.setattr(decisions, "REDUCTION_FACTOR", 1)
    planned, raced = anytime.choose_candidates, ("feature-extraction", "finetune", "warm-start")

    def fewer(*given):
        plan = planned(*given)
        return replace(plan, candidates=tuple(one for one in plan.candidates if one.recipe.strategy in raced))

    monkeypatch.setattr(anytime, "choose_candidates", fewer)
    options = {"backbone": tiny, "weights": "own", "epochs": 3, "batch_size": 16, "out": tmp_path / "run", **SPLIT}
    with pytest.raises(Broken):
        crossroads.fit(pictures, watcher=StopInTune(), **options)
    kept = json.loads((tmp_path / "run" / "checkpoint" / "race.json").read_text())["runs"]
    watcher = Notes()
    run = crossroads.fit(pictures, watcher=watcher, resume=True, **options)
    runs = run.metrics["race"]["runs"]
    assert len(runs) > len(kept) > 0
    assert "finetune" in {row["strategy"] for row in runs}
    assert [row["failed"] for row in runs] == [None] * len(runs)
    assert not {note.code for note in watcher.said} & {"run-failed", "run-out-of-time"}


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (0.60, "profile-rises-to-end"),
        (0.96, "profile-flat-to-end"),
    ],
)
def test_a_profile_rises_only_if_the_difference_is_significant(advice, first, code):
    depths = [
        Depth(name, depth, Estimate(value, value - 0.02, min(1.0, value + 0.02)), Estimate(0.5, 0.4, 0.6))
        for name, depth, value in (("start", 0.5, first), ("end", 1.0, 0.97))
    ]
    leading = replace(advice.evidence.profiles[0], depths=tuple(depths))
    evidence = replace(advice.evidence, profiles=(leading,))
    reasons = by_code(reasons_for(evidence, advice.case, advice.ranked, None))
    assert [name for name in reasons if name.startswith("profile-")] == [code]
    assert (reasons[code].figures["cut"], reasons[code].figures["accuracy"]) == ("end", 0.97)


def test_the_small_network_is_compared_with_the_most_accurate_other_candidate(advice):
    small = next(one for one in advice.ranked if one.recipe.strategy == "from-scratch")
    first, second = [one for one in advice.ranked if one is not small][:2]
    ranked = (
        replace(small, accuracy=Estimate(0.999, 0.9, 1.0)),
        replace(first, accuracy=Estimate(0.996, 0.9, 1.0)),  # first because it is cheaper
        replace(second, accuracy=Estimate(0.998, 0.9, 1.0)),
    )
    figures = by_code(reasons_for(advice.evidence, advice.case, ranked, None))["baselines"].figures
    assert (figures["trained"], figures["best"], figures["best_accuracy"]) == (0.999, second.name, 0.998)


def test_a_single_name_is_one_backbone(pictures):
    with refused("unknown-backbone", BackboneError, hint="did you mean 'small-cnn'?"):
        crossroads.advise(pictures, backbones="small-cn", weights="none", **SPLIT)
