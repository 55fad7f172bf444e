"""From images to advice, on a tiny network of one's own."""

import json
import re
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
from crossroads.errors import BackboneError, RecipeError, SplitError
from crossroads.progress import Silent
from crossroads.race import decisions
from crossroads.recipe import Recipe
from crossroads.report.console import print_run
from crossroads.strategies import STRATEGIES, strategy
from pictures import stripes
from watchers import Notes

pytestmark = pytest.mark.core
SPLIT = {"validation": 0.25, "test_fraction": 0.2}


SIZE = 16


@pytest.fixture(autouse=True)
def _quick(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("CROSSROADS_CACHE", str(tmp_path_factory.getbasetemp() / "advice-cache"))
    monkeypatch.setattr(baselines, "SHORT_EPOCHS", (2, 2))
    monkeypatch.setattr(warm_start, "SECONDS", 0.01)


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
        patch.setattr(baselines, "SHORT_EPOCHS", (2, 2))
        patch.setattr(warm_start, "SECONDS", 30.0)
        return crossroads.advise(pictures, backbones=[tiny], epochs=4, **SPLIT)


def test_every_strategy_is_ranked_with_what_it_takes(advice):
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


def test_evidence_is_of_the_training_split_alone(pictures, tiny):
    images, labels = pictures
    seen = crossroads.advise((images, labels), backbones=[tiny], **SPLIT)
    parts = module_split(images, labels)
    hidden = images.copy()
    hidden[parts] = np.random.default_rng(0).integers(0, 256, hidden[parts].shape)
    again = crossroads.advise((hidden, labels), backbones=[tiny], **SPLIT)
    assert seen.evidence.size == again.evidence.size
    assert seen.evidence.profiles == again.evidence.profiles
    assert seen.evidence.curve == again.evidence.curve
    assert seen.evidence.baselines.pixels == again.evidence.baselines.pixels
    assert seen.evidence.baselines.majority == again.evidence.baselines.majority
    assert seen.evidence.baselines.short.accuracy == again.evidence.baselines.short.accuracy
    assert seen.evidence.warm_start.accuracy == again.evidence.warm_start.accuracy
    assert seen.evidence.warm_start.epochs == again.evidence.warm_start.epochs


def test_where_another_strategy_than_that_of_the_case_comes_first_it_is_said_why(advice):
    reasons = {}
    for number in (1, 2, 3, 4):
        case = replace(advice.case, number=number)
        leading = advice.evidence.profiles[0]
        reasons[number] = list(reasons_for(advice.evidence, leading, case, advice.ranked, None))
    first = next(record.case[0] for record in STRATEGIES if record.name == advice.best.recipe.strategy)
    said = {number for number, words in reasons.items() if any(f"{advice.best.name} is put first for" in one for one in words)}
    assert said == {1, 2, 3, 4} - {int(first)}


def test_what_is_expected_goes_with_the_slope_of_the_learning_curve_that_was_measured(advice):
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
    held = 66 * SPLIT["validation"] / (1 - sum(SPLIT.values()))
    assert start.epoch_seconds == pytest.approx((66 + VALIDATING * held) * short.seconds_per_image)  # measured, not estimated
    early = next(one for one in advice.ranked if one.recipe.strategy == "finetune-early")
    assert early.epoch_seconds < start.epoch_seconds  # a part of the steps
    said = f"a short warm start of own:tiny, {short.epochs} epochs of {short.images} images, reaches {short.accuracy.value:.3f}"
    assert any(reason.startswith(said) for reason in advice.reasons)
    assert advice.to_json()["evidence"]["warm_start"]["images"] == short.images


def module_split(images, labels):
    """Rows of validation and test."""
    from crossroads.data.readers import read
    from crossroads.data.splits import split

    parts = split(read((images, labels)), validation=0.25, test=0.2, seed=0)
    return np.concatenate([parts.validation.indices, parts.test.unseal().indices])


def test_the_reasons_name_size_depth_similarity_more_data_and_the_level(advice):
    words = "\n".join(advice.reasons)
    for part in (
        "66 training images of 3 classes",
        "a probe's accuracy",
        "random weights reaches",
        "similarity",
        "twice the images",
    ):
        assert part in words
    assert "0.333 by always predicting the largest class" in words
    assert "by small-cnn after a short training" in words


def test_it_is_plain_values_for_a_program(advice):
    value = json.loads(json.dumps(advice.to_json(), allow_nan=False))
    assert value["case"]["number"] in (1, 2, 3, 4)
    assert 0 <= value["case"]["size"] <= 1
    assert len(value["evidence"]["profiles"][0]["depths"]) == 3
    assert value["ranked"][0]["strategy"] == advice.best.recipe.strategy


def test_a_budget_too_small_for_anything_says_what_is_not(pictures, tiny):
    found = crossroads.advise(pictures, backbones=[tiny], budget=0.5, **SPLIT)
    assert all("the budget is 0.5" in one.obstacle for one in found.ranked)
    assert any("too small for anything; the smallest that does is about" in reason for reason in found.reasons)


def test_the_short_training_ends_with_its_fraction_of_the_budget(pictures, tiny, monkeypatch):
    monkeypatch.setattr(baselines, "SHORT_EPOCHS", (6, 6))
    seen = []

    class Stages(Silent):
        def progress(self, stage, done, total):
            if stage == "a short training":
                seen.append((done, total))

    found = crossroads.advise(pictures, backbones=[tiny], budget=1e-3, watcher=Stages(), **SPLIT)
    assert found.evidence.baselines.short.epochs == 1
    assert [done * 6 / total for done, total in seen] == [1]
    assert found.evidence.warm_start is None


def test_several_backbones_are_compared_and_the_better_one_leads(pictures, tiny):
    found = crossroads.advise(pictures, backbones=[tiny, "quiz-cnn"], weights=["own", "none"], **SPLIT)
    assert {profile.backbone for profile in found.evidence.profiles} == {"own:tiny", "quiz-cnn"}
    random = [one for one in found.ranked if one.recipe.backbone == "quiz-cnn"]
    assert {one.recipe.strategy for one in random} <= {"feature-extraction", "early-features"}  # nothing of it was pretrained


def test_the_reasons_are_of_the_network_that_the_case_is_drawn_from(pictures, tiny):
    found = crossroads.advise(pictures, backbones=["quiz-cnn", tiny], weights=["none", "own"], **SPLIT)
    untrained = replace(found.evidence.profiles[0], backbone="quiz-cnn", similarity=None)
    leading = next(profile for profile in found.evidence.profiles if profile.similarity is not None)
    evidence = replace(found.evidence, profiles=(untrained, leading))
    words = " ".join(reasons_for(evidence, leading, found.case, found.ranked, None))
    assert "of the depth of own:tiny" in words or "the last layer" in words
    assert "quiz-cnn (" not in words
    assert f"similarity {leading.similarity.value}" in words


def test_a_network_that_memory_cannot_hold_is_left_out(pictures, tiny, monkeypatch):
    monkeypatch.setattr(module, "available_memory_mb", lambda: 700.0)
    watcher = Notes()
    found = crossroads.advise(pictures, backbones=[tiny], watcher=watcher, **SPLIT)
    assert [one.recipe.strategy for one in found.ranked] == ["from-scratch"]
    assert found.case is None
    assert any("own:tiny is left out: it takes about" in note for note in watcher.said)


def test_images_that_are_all_alike_give_an_answer_and_no_more_than_the_largest_class(tiny):
    images = np.full((60, 16, 16, 3), 120, np.uint8)
    found = crossroads.advise((images, np.arange(60) % 3), backbones=[tiny], **SPLIT)
    assert found.evidence.baselines.pixels.value <= 0.4
    assert found.evidence.profiles[0].best.accuracy.value <= 0.4
    assert found.evidence.size.repeated > 0.9


def test_two_classes_do(tiny):
    found = crossroads.advise(stripes(60), backbones=[tiny], **SPLIT)
    assert found.evidence.size.classes == 2


def test_one_image_per_class_cannot_be_split(tiny):
    images, labels = stripes(3, classes=("level", "slanting", "upright"))
    with pytest.raises(SplitError, match="received 3 classes of at most 1 image"):
        crossroads.advise((images, labels), backbones=[tiny], **SPLIT)


def test_some_of_very_many_classes_are_sampled_with_a_note(tiny, monkeypatch):
    for name in (sample, module):
        monkeypatch.setattr(name, "MOST_CLASSES", 10)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (160, 16, 16, 3), dtype=np.uint8)
    watcher = Notes()
    found = crossroads.advise((images, np.arange(160) % 40), backbones=[tiny], watcher=watcher, validation=0.25, test_fraction=0.0)
    assert any("drawn from 10 of the 40 classes" in note for note in watcher.said)
    assert found.evidence.size.classes == 40
    assert found.evidence.profiles[0].images == 30


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"strategy": "finetune"}, RecipeError, "strategy has no effect here"),
        ({"cut": "0.6"}, RecipeError, "cut belongs to one strategy, and none is named"),
        ({"weights": ["a.h5"]}, RecipeError, "weights has no effect without a backbone"),
        ({"backbones": ["quiz-cnn"], "weights": ["none", "none"]}, RecipeError, "once for all backbones, or once for each"),
        ({"backbones": ["quiz-cn"]}, BackboneError, "did you mean 'quiz-cnn'"),
        ({"budget": 0}, RecipeError, "budget must be"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(pictures, options, error, words):
    with pytest.raises(error, match=words):
        crossroads.advise(pictures, **SPLIT, **options)


def test_auto_races_what_was_advised_and_the_artifact_says_why(pictures, tiny, tmp_path):
    run = crossroads.fit(pictures, out=tmp_path / "run", backbone=tiny, weights="own", epochs=4, batch_size=16, budget=0.5, **SPLIT)
    won = run.metrics["strategy"]
    assert won in ("feature-extraction", "early-features")  # too small a budget for anything: still a head on frozen features
    assert run.metrics["race"]["runs"][0]["won"]
    assert run.metrics["race"]["why"].startswith(f"{won} of own:tiny won")
    assert run.metrics["advice"]["evidence"]["profiles"]
    assert run.metrics["validation"]["accuracy"] == pytest.approx(run.metrics["race"]["runs"][0]["validation_accuracy"])
    again = crossroads.fit(
        pictures, out=tmp_path / "run", backbone=tiny, weights="own", epochs=4, batch_size=16, budget=0.5, resume=True, **SPLIT
    )
    assert again.metrics == run.metrics
    assert {path.name for path in run.artifact.iterdir()} == {*artifact.FILES, artifact.MANIFEST}


def test_without_pretrained_networks_the_small_network_is_trained_with_a_note(pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("CROSSROADS_WEIGHTS_URL", "http://127.0.0.1:9")
    watcher = Notes()
    run = crossroads.fit(pictures, out=tmp_path / "run", epochs=2, watcher=watcher, **SPLIT)
    assert (run.metrics["strategy"], run.metrics["backbone"]) == ("from-scratch", "small-cnn")
    assert any(note.startswith("no pretrained network is considered") for note in watcher.said)
    assert "nothing pretrained to choose from: training from scratch" in watcher.said


def test_with_nothing_pretrained_a_budget_shortens_the_training(pictures, tmp_path, capsys):
    watcher = Notes()
    run = crossroads.fit(pictures, out=tmp_path / "run", weights="none", budget="0.5s", image_size=80, watcher=watcher, **SPLIT)
    [row] = run.metrics["race"]["runs"]
    assert row["epochs"] == 1 < row["usual_epochs"]
    assert (run.metrics["strategy"], run.metrics["epochs"]) == ("from-scratch", 1)
    assert Recipe.from_toml(run.artifact / "recipe.toml").image_size == 80
    print_run(run)
    assert re.search(r"^run .*from-scratch .* won\n\nvalidation_n: ", capsys.readouterr().out, re.DOTALL)
    assert "nothing pretrained to choose from: training from scratch" in watcher.said


def test_random_weights_that_were_asked_for_leave_training_from_scratch(pictures, tmp_path):
    run = crossroads.fit(pictures, out=tmp_path / "run", backbone="quiz-cnn", weights="none", image_size=16, epochs=2, **SPLIT)
    assert (run.metrics["strategy"], run.metrics["backbone"]) == ("from-scratch", "quiz-cnn")


def test_a_budget_beside_a_named_strategy_is_refused(pictures, tmp_path):
    with pytest.raises(RecipeError, match="budget does nothing with a strategy that is named"):
        crossroads.fit(pictures, out=tmp_path / "run", strategy="from-scratch", budget=60)
    assert not (tmp_path / "run").exists()


class StopInTune(Silent):
    """Breaks off in the second epoch of finetuning, as a kill would."""

    def epoch(self, record, total):
        if (record.phase, record.epoch) == ("tune", 2):
            raise Broken


class Broken(BaseException):
    """The end of the process."""


def test_the_race_resumes_an_interrupted_run(pictures, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(decisions, "MIN_GAIN", -1.0)  # stripes are easy: no candidate could be hoped to do better
    monkeypatch.setattr(decisions, "REDUCTION_FACTOR", 1)
    options = {"backbone": tiny, "weights": "own", "epochs": 3, "batch_size": 16, "out": tmp_path / "run", **SPLIT}
    with pytest.raises(Broken):
        crossroads.fit(pictures, watcher=StopInTune(), **options)
    kept = json.loads((tmp_path / "run" / "checkpoint" / "race.json").read_text())["runs"]
    watcher = Notes()
    run = crossroads.fit(pictures, watcher=watcher, resume=True, **options)
    runs = run.metrics["race"]["runs"]
    assert len(runs) > len(kept) > 0
    assert [row["failed"] for row in runs] == [None] * len(runs)
    assert "finetune" in {row["strategy"] for row in runs}
    assert not [note for note in watcher.said if "given up" in note]


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (0.60, "accuracy rises to the last layer, end, 100% of the depth of own:tiny (0.970): what it learned last fits"),
        (0.96, "accuracy is highest at the last layer, end, 100% of the depth of own:tiny (0.970), within chance of start before"),
    ],
)
def test_a_profile_is_said_to_rise_only_beyond_chance(advice, first, words):
    depths = [
        Depth(name, depth, Estimate(value, value - 0.02, min(1.0, value + 0.02)), Estimate(0.5, 0.4, 0.6))
        for name, depth, value in (("start", 0.5, first), ("end", 1.0, 0.97))
    ]
    leading = replace(advice.evidence.profiles[0], depths=tuple(depths))
    said = list(reasons_for(advice.evidence, leading, advice.case, advice.ranked, None))
    assert any(reason.startswith(f"a probe's {words}") for reason in said)


def test_the_small_network_is_held_beside_the_best_of_the_others(advice):
    small = next(one for one in advice.ranked if one.recipe.strategy == "from-scratch")
    first, second = [one for one in advice.ranked if one is not small][:2]
    order = (
        replace(small, accuracy=Estimate(0.999, 0.9, 1.0)),
        replace(first, accuracy=Estimate(0.996, 0.9, 1.0)),  # put first since it is cheaper
        replace(second, accuracy=Estimate(0.998, 0.9, 1.0)),
    )
    leading = advice.evidence.profiles[0]
    words = " ".join(reasons_for(advice.evidence, leading, advice.case, order, None))
    assert f"reach 0.999 where the best of the others, {second.name}, reaches 0.998" in words


def test_one_name_in_place_of_a_list_is_one_backbone(pictures):
    with pytest.raises(BackboneError, match="received 'small-cn'; did you mean 'small-cnn'"):
        crossroads.advise(pictures, backbones="small-cn", weights="none", **SPLIT)
