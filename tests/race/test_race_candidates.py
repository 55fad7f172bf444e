"""The candidates of a race: those without an obstacle, and always a head on frozen features that memory holds."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import crossroads
from crossroads.advice import recommend
from crossroads.advice.candidate_backbones import CandidateBackbone
from crossroads.advice.candidates import Candidate, apply_limits
from crossroads.advice.estimate import Estimate
from crossroads.data import partition as partition_module
from crossroads.data.partition import load_and_split
from crossroads.errors import DataError, RecipeError
from crossroads.networks.construct import choose
from crossroads.progress import Relay, Silent
from crossroads.race import candidates
from crossroads.race.candidates import choose_candidates, identity_of
from crossroads.race.records import Plan
from crossroads.recipe import Augmentation, Recipe
from crossroads.run import task
from crossroads.run.clock import Clock
from crossroads.run.task import Tasks
from pictures import stripes
from refusals import refused
from tiny_networks import tiny
from watchers import Notes

ACCURACY = {"feature-extraction": 0.8, "early-features": 0.7, "finetune": 0.9, "from-scratch": 0.6}
SECONDS = {"feature-extraction": 50.0, "early-features": 40.0, "finetune": 500.0, "from-scratch": 20.0}
MEMORY = {"feature-extraction": 900.0, "early-features": 800.0, "finetune": 4_000.0, "from-scratch": 700.0}


@pytest.fixture
def plan(monkeypatch):
    """From a budget, a memory and seconds of an epoch of finetuning to the candidates, and the notes."""
    partition = load_and_split(crossroads.read(stripes(20, size=16)), None, Recipe(), Silent())

    def candidate(name, value, each):
        recipe = Recipe(strategy=name, backbone="b", epochs=10 if name == "finetune" else None)
        return Candidate(recipe, *[Estimate(value, 0.0, 1.0)] * 2, SECONDS[name], each if recipe.epochs else 0.0, MEMORY[name])

    def found(budget, memory, each=0.0):
        order = sorted(ACCURACY.items(), key=lambda item: -item[1])
        ranked = tuple(apply_limits(candidate(name, value, each), budget, memory) for name, value in order)
        advice = SimpleNamespace(ranked=ranked, budget=budget, evidence=SimpleNamespace(seconds=1.0), to_json=dict)
        monkeypatch.setattr(candidates, "recommend", lambda *_: advice)
        notes: list[str] = []
        watcher, clock = Relay(Silent(), after_note=notes.append), Clock(0.0, budget=budget, now=lambda: 0.0)
        return choose_candidates(partition, ["a backbone"], None, clock, watcher).candidates, notes

    return found


@pytest.fixture
def names_and_notes(plan):
    """Returns the strategies that race, and the code and strategy of each note."""

    def found(budget, memory):
        candidates, notes = plan(budget, memory)
        return [one.recipe.strategy for one in candidates], [(note.code, note.figures.get("strategy")) for note in notes]

    return found


def test_a_slow_candidate_races_with_all_its_epochs_for_the_race_to_shorten(plan):
    candidates, notes = plan(200.0, None, each=45.0)
    first = next(one for one in candidates if one.recipe.strategy == "finetune")
    assert (first.recipe.epochs, first.seconds, first.epoch_seconds, first.shortens) == (10, 500.0, 45.0, True)
    (limited,) = (note for note in notes if note.code == "epochs-limited")
    assert (limited.figures["strategy"], limited.figures["epochs"]) == ("finetune", 3)


def test_the_identity_of_a_race_covers_images_and_labels():
    def of(pixels, labels):
        return identity_of(load_and_split(crossroads.read((pixels, labels)), None, Recipe(), Silent()))

    pixels, labels = stripes(20, size=16)
    others, _ = stripes(20, size=16, seed=1)
    assert of(pixels, labels) == of(pixels.copy(), labels)
    assert of(pixels, labels) != of(others, labels)
    assert of(pixels, labels) != of(pixels, labels[::-1])


def test_dark_16_bit_files_get_a_note_and_a_class_in_an_unreadable_format_is_refused(tmp_path):
    for number in range(24):
        home = tmp_path / "ab"[number % 2]
        home.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 1000, (8, 8)).astype(np.uint16)).save(home / f"{number}.png")
    watcher = Notes()
    task = Tasks(load_and_split(tmp_path, None, Recipe(), watcher), tmp_path, None, watcher).task_for(
        Recipe(strategy="from-scratch", image_size=16)
    )
    before = len(watcher.said)
    task.decode()  # only when it is known that there can be an artifact
    assert sum("of 65,535" in note for note in watcher.said[before:]) == 1
    (tmp_path / "c").mkdir()
    for number in range(12):
        (tmp_path / "c" / f"{number}.jxl").write_bytes(b"\xff\x0a" + bytes([number] * 50))
    with refused("unreadable-class", DataError):
        load_and_split(tmp_path, None, Recipe(), Silent())


def test_an_unsafe_flip_is_refused_before_anything_is_measured(monkeypatch):
    slope = np.tile(np.arange(16) * 15, (40, 16, 1))
    slope[1::2] = slope[1::2, :, ::-1]
    noise = np.random.default_rng(0).normal(0, 5, (40, 16, 16))
    images = (slope + noise).clip(0, 255).astype(np.uint8)[..., None].repeat(3, axis=3)
    partition = load_and_split(
        (images, np.tile(["left", "right"], 20)), None, Recipe(augmentation=Augmentation(flip=True)), Silent()
    )
    monkeypatch.setattr(recommend, "measure_machine", lambda: pytest.fail("too late"))
    backbones = (CandidateBackbone(choose(tiny()), "own", named=True),)
    with refused("unsafe-flip", RecipeError, field="augmentation"):
        choose_candidates(partition, backbones, None, Clock(0.0, budget=60.0, now=lambda: 0.0), Silent())


def test_a_plan_follows_images_that_were_moved(plan):
    candidates, _ = plan(600.0, None)
    moved = Plan(candidates, 600.0, 1.0, {}).at("pics", None)
    assert {one.recipe.data for one in moved.candidates} == {"pics"}
    assert [replace(one.recipe, data=None) for one in moved.candidates] == [one.recipe for one in candidates]


def test_candidates_without_an_obstacle_race_in_the_order_of_the_advice(names_and_notes):
    assert names_and_notes(600.0, None) == (["finetune", "feature-extraction", "early-features", "from-scratch"], [])
    names, notes = names_and_notes(100.0, None)
    assert names == ["feature-extraction", "early-features", "from-scratch"]
    assert notes == [("candidate-left-out", "finetune")]


def test_a_head_on_frozen_features_races_even_if_the_budget_is_too_small_for_it(names_and_notes):
    names, notes = names_and_notes(30.0, None)
    assert names == ["from-scratch", "feature-extraction"]
    assert ("first-answer-over-limit", "feature-extraction") in notes
    assert ("candidate-left-out", "feature-extraction") not in notes


def test_a_candidate_that_exceeds_memory_is_left_out(names_and_notes):
    names, notes = names_and_notes(600.0, 750.0)
    assert names == ["from-scratch"]
    assert ("candidate-left-out", "feature-extraction") in notes
    assert names_and_notes(30.0, 850.0)[0] == ["from-scratch", "early-features"]


@pytest.mark.parametrize(
    ("budget", "memory", "chosen"),
    [
        (1.0, None, "feature-extraction"),
        (600.0, 1.0, "feature-extraction"),
        (1.0, 850.0, "early-features"),
    ],
)
def test_if_nothing_fits_the_best_head_races_with_a_warning(names_and_notes, budget, memory, chosen):
    names, notes = names_and_notes(budget, memory)
    assert names == [chosen]
    assert notes[0] == ("limit-too-small", chosen)


@pytest.mark.parametrize(
    ("asked", "code", "field"),
    [
        ({"strategy": "finetune", "weights": "absent.h5"}, "no-such-file", None),
        ({"backbone": "MobileNet"}, "unknown-backbone", "backbone"),
        ({"backbone": "mobilenet", "image_size": 20}, "image-size-not-supported", "image_size"),
        ({"strategy": "feature-extraction", "epochs": 3}, "option-without-effect", "epochs"),
        ({"cut": "0.5"}, "option-needs-strategy", "cut"),
        ({"strategy": "finetune", "backbone": "small-cnn", "weights": "imagenet"}, "no-imagenet-weights", "weights"),
    ],
)
def test_an_invalid_recipe_is_refused_before_an_image_is_read(monkeypatch, tmp_path, asked, code, field):
    monkeypatch.setattr(partition_module, "read", None)
    with refused(code, field=field):
        crossroads.fit("photos", out=tmp_path / "run", **asked)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"backbones": ["mobilenet", "MobileNet"]}, "unknown-backbone"),
        ({"backbones": ["mobilenet"], "weights": ["absent.h5"]}, "no-such-file"),
    ],
)
def test_invalid_options_of_advice_are_refused_before_an_image_is_read(monkeypatch, asked, code):
    monkeypatch.setattr(partition_module, "read", None)
    with refused(code):
        crossroads.advise("photos", **asked)


def test_a_budget_shortens_the_small_network_even_if_it_is_named(monkeypatch):
    asked: list[float | None] = []

    def recommended(_train, _side, offers, recipe, _watcher, first):
        assert not offers
        assert first is None
        asked.append(recipe.budget)
        raise RecipeError("enough", received="this")

    monkeypatch.setattr(candidates, "recommend", recommended)
    clock = Clock(0.0, budget=60.0, now=lambda: 0.0)
    pictures = crossroads.read(stripes(20, size=16))
    for name in ("small-cnn", None):
        recipe = Recipe(backbone=name, weights="none" if name else None, budget=60)
        partition = load_and_split(pictures, None, recipe, Silent())
        with pytest.raises(RecipeError, match="enough"):
            choose_candidates(partition, (), None, clock, Silent())
    assert asked == [60, 60]
    notes: list[str] = []
    other = load_and_split(pictures, None, Recipe(backbone="quiz-cnn", weights="none", budget=60), Silent())
    assert not choose_candidates(other, (), None, clock, Relay(Silent(), after_note=notes.append)).candidates
    assert [note.code for note in notes] == ["budget-does-not-shorten"]


@pytest.fixture
def decoded(tmp_path, monkeypatch):
    """From image sizes, as tasks ask for them one after the other, to those of the training images that were decoded, and tasks."""

    def asked(sizes):
        stages = []
        load_all = task.load_all

        def counted(part, resize, **options):
            if part is partition.train:
                stages.append(resize.size)
            return load_all(part, resize, **options)

        monkeypatch.setattr(task, "load_all", counted)
        partition = load_and_split(
            crossroads.read(stripes(40, size=16)), None, Recipe(validation=0.25, test_fraction=0.0), Silent()
        )
        tasks = Tasks(partition, tmp_path, None, Silent())
        found = [tasks.task_for(Recipe(strategy="from-scratch", image_size=size)).decode() for size in sizes]
        monkeypatch.setattr(task, "load_all", load_all)
        assert [pair[0].pixels.shape[1] for pair in found] == list(sizes)
        return stages, found

    return asked


def test_a_race_decodes_once_for_each_size(decoded):
    stages, found = decoded((24, 24, 40, 24, 40))
    assert stages == [24, 40]
    assert found[0] is found[3]
    assert not any(isinstance(side.pixels, np.memmap) for pair in found for side in pair)


def test_a_second_size_that_exceeds_memory_is_kept_in_files_of_the_run(decoded, monkeypatch, tmp_path):
    monkeypatch.setattr(task, "IN_MEMORY", 40 * 24 * 24 * 3)
    stages, found = decoded((24, 40, 24, 40))
    assert stages == [24, 40]
    assert [isinstance(side.pixels, np.memmap) for side in (*found[0], *found[1])] == [False, False, True, True]
    assert {path.suffix for path in tmp_path.iterdir()} == {".pixels"}


def test_a_size_is_dropped_if_neither_memory_nor_disk_holds_another(decoded, monkeypatch):
    monkeypatch.setattr(task, "IN_MEMORY", 40 * 40 * 40 * 3)
    monkeypatch.setattr(task.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    stages, found = decoded((24, 40, 24))
    assert stages == [24, 40, 24]
    assert not any(isinstance(side.pixels, np.memmap) for pair in found for side in pair)


def test_a_task_decodes_its_images_lazily(monkeypatch, tmp_path):
    partition = load_and_split(crossroads.read(stripes(40, size=16)), None, Recipe(), Silent())
    monkeypatch.setattr(task, "load_all", lambda *_, **__: pytest.fail("decoded"))
    Tasks(partition, tmp_path, None, Silent()).task_for(Recipe(strategy="from-scratch", image_size=24))
