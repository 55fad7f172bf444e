"""Covers `fit`, `evaluate`, `advise` and resumed runs from end to end, on tiny images."""

import json
import shutil
import tomllib
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import crossroads
import tiny_graphs
from crossroads import artifact
from crossroads.advice import recommend
from crossroads.advice.candidate_backbones import CandidateBackbone
from crossroads.artifact import load_model, open_verified, read_seen
from crossroads.artifact._manifest import file_record, manifest_text
from crossroads.data import partition as partition_module
from crossroads.data import splits
from crossroads.data.dataset import Dataset
from crossroads.errors import ArtifactError, DataError, RecipeError, SplitError, TrainingError
from crossroads.networks.construct import choose
from crossroads.predictor import Predictor
from crossroads.recipe import Augmentation, Recipe
from crossroads.run import results
from killing import Killed, StopAt
from pictures import folder_of, stripes
from refusals import refused
from watchers import Notes

pytestmark = pytest.mark.core
WITH_OWN_TEST = Recipe(strategy="from-scratch", backbone="quiz-cnn", epochs=2, batch_size=16, image_size=16, validation=0.2)
QUICK = replace(WITH_OWN_TEST, test_fraction=0.2)


def code_of(note):
    """The code of a note; "" for a plain string."""
    return getattr(note, "code", "")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    images, labels = stripes(80)
    return folder_of(tmp_path_factory.mktemp("stripes"), images, labels)


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSROADS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    """Returns a recipe for tests of data, splits and notes: it solves a head on a tiny graph, a fifth of the time of a training."""
    graph = tiny_graphs.written(tiny_graphs.convnet(), tmp_path_factory.mktemp("graph") / "tiny.xml")
    options = {"strategy": "feature-extraction", "backbone": str(graph), "preprocessing": "tf", "image_size": tiny_graphs.SIZE}
    return Recipe(**options, validation=0.2, test_fraction=0.2)


@pytest.fixture(scope="module")
def run(source, tmp_path_factory):
    return crossroads.fit(source, out=tmp_path_factory.mktemp("run") / "run", recipe=QUICK, epochs=6)


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    """Returns a run that was not interrupted."""
    return crossroads.fit(source, out=tmp_path_factory.mktemp("whole") / "run", recipe=QUICK)


def without_test(recipe):
    """Returns the recipe for data with a test set of its own."""
    return replace(recipe, test_fraction=Recipe().test_fraction)


def coded(watcher, code):
    """Returns the notes and warnings with a code."""
    return [note for note in watcher.said if getattr(note, "code", "") == code]


def test_a_run_has_json_for_programs(run):
    told = run.to_json()
    assert {"artifact", "backbone", "strategy", "seconds", "peak_memory_mb", "validation", "test"} <= told.keys()
    for split, n in (("validation", 16), ("test", 16)):
        assert told[split]["n"] == n
        assert {"n", "accuracy", "accuracy_interval", "balanced_accuracy", "loss"} <= told[split].keys()
    json.dumps(told, allow_nan=False)


def test_it_learned(run):
    assert run.metrics["test"]["accuracy"] >= 0.9


def test_the_artifact_has_exactly_these_files(run):
    names = {path.name for path in run.artifact.iterdir()}
    assert names == {
        "model.keras",
        "model.xml",
        "model.bin",
        "crossroads.json",
        "metrics.json",
        "history.csv",
        "recipe.toml",
        "seen.npy",
        "held_out.npz",
        "thumbnails.npz",
        "neighbours.npz",
        "report.html",
        "README.md",
    }
    facts = open_verified(run.artifact).facts
    assert facts["classes"] == ["level", "upright"]
    assert facts["data"]["splits"]["train"]["n"] == 48
    assert len((run.artifact / "history.csv").read_text().splitlines()) == 7


def test_what_was_scored_is_what_was_saved(run, source):
    test = splits.split(crossroads.read(source), validation=0.2, test=0.2, seed=0).test.unseal()
    scored = Predictor.load(run.artifact).probabilities_of(test)
    accuracy = (scored.probabilities.argmax(1) == test.labels).mean()
    assert accuracy == run.metrics["test"]["accuracy"]
    keras_model = load_model(run.artifact)
    from crossroads.data.loading import load_all

    np.testing.assert_allclose(keras_model.predict_on_batch(load_all(test, 16).pixels), scored.probabilities, atol=1e-4)


def test_the_recipe_in_the_artifact_repeats_the_run(run, tmp_path):
    stored = tomllib.loads((run.artifact / "recipe.toml").read_text())
    again = crossroads.fit(out=tmp_path / "again", recipe=Recipe.from_mapping(stored))
    assert open_verified(again.artifact).facts["weights"] == open_verified(run.artifact).facts["weights"]
    assert again.metrics["test"]["loss"] == run.metrics["test"]["loss"]


def test_evaluate_scores_other_data_of_the_same_classes(run, tmp_path):
    images, labels = stripes(20, seed=9)
    scored = crossroads.evaluate(run.artifact, folder_of(tmp_path / "new", images, labels))
    assert scored.n == 20
    assert scored.accuracy >= 0.9


def test_a_run_is_accepted_in_place_of_its_folder(run):
    assert crossroads.load(run).classes == crossroads.load(run.artifact).classes
    assert artifact.read_metrics(run) == run.metrics
    assert artifact.load_model(run).output_shape[1] == len(crossroads.load(run).classes)


@pytest.mark.parametrize("read", [crossroads.load, artifact.read_metrics, lambda run: crossroads.evaluate(run, "images")])
@pytest.mark.parametrize("wrong", [None, 3, {"artifact": "runs/photos"}], ids=lambda wrong: type(wrong).__name__)
def test_other_objects_are_not_accepted_as_an_artifact(read, wrong):
    with refused("not-an-artifact", ArtifactError, received=f"an object of class {type(wrong).__name__}"):
        read(wrong)


def test_an_unknown_label_is_refused(run, tmp_path):
    images, _ = stripes(4)
    with refused("unknown-label", DataError, received="'uprigth' (2 images), the first uprigth/0001.png"):
        crossroads.evaluate(run.artifact, folder_of(tmp_path / "new", images, ["level", "uprigth"] * 2))


def test_a_finished_run_is_not_overwritten_and_resuming_it_returns_it(run, source):
    before = (run.artifact / "crossroads.json").read_bytes()
    with refused("artifact-exists", ArtifactError, field="out"):
        crossroads.fit(source, out=run.artifact, recipe=QUICK)
    assert crossroads.fit(source, out=run.artifact, recipe=QUICK, epochs=6, resume=True).metrics == run.metrics
    with refused("resumed-with-other-option", RecipeError, field="epochs", received="2"):
        crossroads.fit(source, out=run.artifact, recipe=QUICK, resume=True)
    assert (run.artifact / "crossroads.json").read_bytes() == before


def test_a_finished_run_is_not_returned_for_other_images(source, run, tmp_path):
    images, labels = stripes(80, seed=3)
    other = folder_of(tmp_path / "other", images, labels)
    options = {"out": run.artifact, "recipe": QUICK, "epochs": 6, "resume": True}
    with refused("other-images", DataError, received=str(other)):
        crossroads.fit(other, **options)
    with refused("no-such-file", DataError):
        crossroads.fit(tmp_path / "nowhere", **options)
    with refused("other-images", DataError, received="arrays"):
        crossroads.fit((images, labels), **options)
    shutil.copytree(source, tmp_path / "moved")
    assert crossroads.fit(tmp_path / "moved", **options).metrics == run.metrics
    victim = sorted((tmp_path / "moved" / "level").iterdir())[0]
    victim.rename(tmp_path / "moved" / "upright" / "now-upright.png")
    with refused("other-images", DataError, received=str(tmp_path / "moved")):
        crossroads.fit(tmp_path / "moved", **options)


def test_a_finished_run_is_not_returned_for_another_test_set(source, tmp_path, solved):
    recipe = without_test(solved)
    own, other = stripes(12, seed=4), stripes(12, seed=5)
    run = crossroads.fit(source, out=tmp_path / "run", test=own, recipe=recipe)
    options = {"out": tmp_path / "run", "recipe": recipe, "resume": True}
    assert crossroads.fit(source, test=own, **options).metrics == run.metrics
    with refused("other-images", DataError, received="arrays"):
        crossroads.fit(source, test=other, **options)


def test_a_finished_run_is_not_returned_for_a_recipe_with_other_images(tmp_path, solved):
    folders = [folder_of(tmp_path / name, *stripes(60, seed=seed)) for seed, name in enumerate(("photos", "other"))]
    recipes = [replace(solved, data=str(folder)) for folder in folders]
    run = crossroads.fit(out=tmp_path / "run", recipe=recipes[0])
    assert crossroads.fit(out=tmp_path / "run", recipe=recipes[0], resume=True).metrics == run.metrics
    with refused("other-images", DataError, received=str(folders[1])):
        crossroads.fit(out=tmp_path / "run", recipe=recipes[1], resume=True)


def test_sources_in_memory_replace_the_paths_of_the_recipe(source, tmp_path, solved):
    recipe = replace(without_test(solved), data="photos", test="held-out")
    run = crossroads.fit(stripes(80), out=tmp_path / "run", test=stripes(12, seed=4), recipe=recipe)
    kept = tomllib.loads((run.artifact / "recipe.toml").read_text())
    assert not {"data", "test"} & kept.keys()


def test_nothing_reads_the_test_set_before_the_final_evaluation(source, tmp_path, monkeypatch):
    test = splits.split(crossroads.read(source), validation=0.2, test=0.2, seed=0).test.unseal()
    held_out = {test.name(row) for row in range(len(test))}
    read, unlocked = [], []
    whole, unlock = Dataset.read, splits.SealedTest.unseal
    monkeypatch.setattr(Dataset, "read", lambda self, row: read.append((self.name(row), bool(unlocked))) or whole(self, row))
    monkeypatch.setattr(splits.SealedTest, "unseal", lambda self: unlocked.append(True) or unlock(self))

    def partition(*args, **options):  # compares the bytes of all images, so that equal ones stay in one split
        parts = splits.split(*args, **options)
        names = [name for name, _ in read]
        assert len(names) == len(set(names))
        read.clear()
        return parts

    monkeypatch.setattr(partition_module, "split", partition)
    crossroads.fit(source, out=tmp_path / "run", recipe=QUICK, epochs=1, report=False)  # a report opens it again to show images
    early = {name for name, after in read if not after}
    assert len(unlocked) == 1
    assert early
    assert not early & held_out
    assert held_out <= {name for name, after in read if after}


def test_an_exception_of_a_watcher_reaches_the_caller_and_the_run_can_be_resumed(source, whole, tmp_path):
    """Running out of memory in the training itself is reported differently."""

    class Stops(crossroads.Silent):
        def epoch(self, record, total):
            raise MemoryError("no room for the plot")

    with pytest.raises(MemoryError, match="no room for the plot"):
        crossroads.fit(source, out=tmp_path / "run", recipe=QUICK, watcher=Stops())
    resumed = crossroads.fit(source, out=tmp_path / "run", recipe=QUICK, resume=True)
    assert open_verified(resumed.artifact).facts["weights"] == open_verified(whole.artifact).facts["weights"]


@pytest.mark.parametrize("at", [(1, 1), (2, 2)])
def test_an_interrupted_run_is_resumed_to_the_same_weights(source, whole, tmp_path, at):
    with pytest.raises(Killed):
        crossroads.fit(source, out=tmp_path / "broken", recipe=QUICK, watcher=StopAt(*at))
    if at[0] > 1:
        with refused("unfinished-run", TrainingError, field="out"):
            crossroads.fit(source, out=tmp_path / "broken", recipe=QUICK)
    resumed = crossroads.fit(source, out=tmp_path / "broken", recipe=QUICK, resume=True)
    assert open_verified(resumed.artifact).facts["weights"] == open_verified(whole.artifact).facts["weights"]
    assert not (resumed.artifact / "checkpoint").exists()


def test_a_run_is_not_resumed_with_other_options_or_other_data(source, tmp_path):
    with pytest.raises(Killed):
        crossroads.fit(source, out=tmp_path / "run", recipe=QUICK, watcher=StopAt(2, 1))
    with refused("resumed-with-other-option", RecipeError, field="seed", received="5"):
        crossroads.fit(source, out=tmp_path / "run", recipe=QUICK, seed=5, resume=True)
    images, labels = stripes(80, seed=3)
    other = folder_of(tmp_path / "other", images, labels)
    with refused("checkpoint-of-another-run", TrainingError) as caught:
        crossroads.fit(other, out=tmp_path / "run", recipe=QUICK, resume=True)
    assert "images or labels differ" in caught.value.rule


def test_an_artifact_inside_the_image_folder_is_refused(source, tmp_path):
    images, labels = stripes(12)
    test = folder_of(tmp_path / "test", images, labels)
    for inside, recipe, held_out in ((source, QUICK, None), (test, WITH_OWN_TEST, test)):
        with refused("out-inside-images", RecipeError, field="out"):
            crossroads.fit(source, out=inside / "level" / "run", recipe=recipe, test=held_out)
        assert not (inside / "level" / "run").exists()


def test_a_resume_without_an_unfinished_run_is_noted(source, tmp_path, solved):
    watcher = Notes()
    crossroads.fit(source, out=tmp_path / "run", recipe=solved, resume=True, watcher=watcher)
    assert len(coded(watcher, "nothing-to-resume")) == 1


def test_a_mistake_leaves_no_folder_behind(tmp_path):
    images, _ = stripes(10)
    one = folder_of(tmp_path / "one", images, ["only"] * 10)
    with refused("too-few-classes", DataError, received="1 (only)"):
        crossroads.fit(one, out=tmp_path / "run", recipe=QUICK)
    assert not (tmp_path / "run").exists()


def test_a_folder_with_other_files_is_left_unchanged(source, tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with refused("out-not-empty", ArtifactError, field="out", received=str(tmp_path)):
        crossroads.fit(source, out=tmp_path, recipe=QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_with_strict_a_class_that_cannot_be_split_is_refused(tmp_path):
    images, labels = stripes(20)
    labels = np.array([*labels[:19], "lonely"])
    with refused("class-too-small", SplitError, field="strict", received="'lonely' (1 image)"):
        crossroads.fit(folder_of(tmp_path / "data", images, labels), out=tmp_path / "run", recipe=QUICK, strict=True)


def test_a_refused_image_is_listed_and_with_strict_an_error(tmp_path, solved):
    images, labels = stripes(40)
    data = folder_of(tmp_path / "data", images, labels)
    (data / "level" / "broken.png").write_bytes((data / "level" / "0000.png").read_bytes()[:100])
    run = crossroads.fit(data, out=tmp_path / "run", recipe=solved)
    [row] = run.refused
    assert row["name"].endswith("level/broken.png")
    data.rename(tmp_path / "moved")
    assert crossroads.fit(tmp_path / "moved", out=tmp_path / "run", recipe=solved, resume=True).metrics == run.metrics
    with refused("image-refused", DataError, field="strict"):
        crossroads.fit(tmp_path / "moved", out=tmp_path / "strict", recipe=solved, strict=True)


def test_labels_of_a_separate_test_set_are_matched_by_name(source, tmp_path, solved):
    images, labels = stripes(12, seed=4)
    test = folder_of(tmp_path / "test", images[labels == "upright"], labels[labels == "upright"])
    run = crossroads.fit(source, out=tmp_path / "run", test=test, recipe=without_test(solved))
    assert run.metrics["test"]["n"] == 6
    again = crossroads.fit(out=tmp_path / "again", recipe=run.artifact / "recipe.toml")
    assert again.metrics["test"] == run.metrics["test"]
    assert run.metrics["validation"]["n"] == 80  # cross-validated


def test_a_test_fraction_beside_a_test_set_is_refused(source, tmp_path):
    with refused("option-without-effect", RecipeError, field="test_fraction", received=0.2):
        crossroads.fit(source, out=tmp_path / "run", test=source, recipe=QUICK)


def test_test_images_seen_in_training_are_reported(source, tmp_path, solved):
    watcher = Notes()
    run = crossroads.fit(source, out=tmp_path / "run", test=source, recipe=without_test(solved), watcher=watcher)
    assert run.metrics["test"]["seen_in_training"] == 80
    [note] = coded(watcher, "test-seen-in-training")
    assert note.figures == {"images": 80, "total": 80}
    assert note in run.metrics["notes"]


def test_images_that_the_weights_learned_from_are_reported(run, source, tmp_path):
    options = {
        "strategy": "feature-extraction",
        "backbone": run.metrics["backbone"],
        "weights": str(run.artifact / "model.keras"),
        "image_size": 16,
    }
    watcher = Notes()
    begun = crossroads.fit(source, out=tmp_path / "begun", seed=5, test_fraction=0.2, watcher=watcher, **options)
    test = begun.metrics["test"]
    assert 0 < test["seen_by_weights"] <= test["n"]
    [note] = coded(watcher, "test-seen-by-weights")
    assert note.figures == {"images": test["seen_by_weights"], "total": test["n"]}
    assert note in begun.metrics["notes"]
    assert len(coded(watcher, "validation-seen-by-weights")) == 1
    # What began there has seen them too.
    seen = [{digest.tobytes() for digest in read_seen(open_verified(one.artifact))} for one in (begun, run)]
    assert seen[1] < seen[0]
    watcher = Notes()
    other = crossroads.fit(stripes(20, seed=9), out=tmp_path / "other", recipe=Recipe(), watcher=watcher, **options)
    assert other.metrics["test"]["seen_by_weights"] == 0
    assert not coded(watcher, "test-seen-by-weights")


def test_advice_notes_that_the_weights_learned_from_the_images(run, source):
    offer = CandidateBackbone(choose(run.metrics["backbone"]), str(run.artifact / "model.keras"), named=True)
    for images, learned in ((source, True), (stripes(80, seed=9), False)):
        watcher = Notes()
        request = recommend.Request(crossroads.read(images), 16.0, Recipe(image_size=16), None, None, watcher)
        recommend._measure(request, offer)
        seen = coded(watcher, "sample-seen-by-weights")
        assert [note.figures["images"] for note in seen] == [80] * learned


def test_evaluate_without_a_watcher_warns_and_lists_its_warnings(run, source):
    with pytest.warns(crossroads.CrossroadsWarning) as caught:
        scored = crossroads.evaluate(run.artifact, source)
    assert {warning.filename for warning in caught} == {__file__}
    facts = open_verified(run.artifact).facts["data"]
    assert (scored.n, scored.seen_in_training) == (80, facts["n"])
    assert scored.warnings == tuple(str(warning.message) for warning in caught)
    assert scored.warnings[-1].figures == {"seen": facts["n"], "images": 80}
    told = json.loads(json.dumps(scored.to_json(), allow_nan=False))
    assert (told["seen_in_training"], told["refused"], told["warnings"]) == (facts["n"], [], list(scored.warnings))
    assert ("seen_in_training", facts["n"]) in scored.lines()


def test_evaluate_lists_what_it_refused(run, tmp_path, recwarn):
    data = folder_of(tmp_path / "new", *stripes(20, seed=9))
    (data / "level" / "broken.png").write_bytes(b"no image")
    scored = crossroads.evaluate(run.artifact, data)
    assert (scored.n, scored.seen_in_training) == (20, 0)
    [row] = scored.to_json()["refused"]
    assert row.keys() == {"name", "reason"}
    assert row["name"].endswith("broken.png")
    assert len(scored.warnings) == 1


def test_a_run_lists_seen_and_refused_images_and_warnings_even_if_warnings_are_errors(tmp_path, solved):
    images, labels = stripes(60)
    data, test = folder_of(tmp_path / "data", images, labels), folder_of(tmp_path / "test", images[:20], labels[:20])
    for folder in (data, test):
        (folder / "level" / "broken.png").write_bytes(b"no image")
    links = folder_of(tmp_path / "links", images, labels)
    for name in ("again", "once more"):
        (links / "upright" / name).symlink_to(test / "level")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error", crossroads.CrossroadsWarning)
        run = crossroads.fit(data, out=tmp_path / "run", test=test, recipe=without_test(solved))
        with pytest.raises(crossroads.CrossroadsWarning):  # an error here loses no training
            crossroads.evaluate(run.artifact, test)
        with pytest.raises(crossroads.CrossroadsWarning):
            crossroads.advise(links)
    assert run.seen_in_training == 20
    assert [row["split"] in ("train", "validation", "test") for row in run.refused] == [True, True]
    assert [row["name"].endswith("broken.png") for row in run.refused] == [True, True]
    ours = [warning for warning in caught if warning.category is crossroads.CrossroadsWarning]
    assert {warning.filename for warning in ours} == {__file__}
    shown = [str(warning.message) for warning in ours]
    assert run.warnings == tuple(shown)
    for part in ("refused", "20 of 20 test images are also in train or validation"):
        assert any(part in warning for warning in run.warnings)
    told = run.to_json()
    assert (told["seen_in_training"], told["refused"], told["warnings"]) == (20, run.refused, list(run.warnings))
    assert told["test"]["warnings"][-1] in run.warnings
    assert [row.keys() for row in told["test"]["refused"]] == [{"name", "reason"}]


def test_an_artifact_of_an_earlier_format_is_a_clear_error(run, source, tmp_path):
    """Its metrics had no warnings, and listed refused images by split."""
    old = tmp_path / "old"
    shutil.copytree(run.artifact, old)
    metrics = {key: value for key, value in run.metrics.items() if key != "warnings"} | {"refused": {"train": [], "validation": []}}
    (old / "metrics.json").write_text(json.dumps(metrics))
    facts = json.loads((old / "crossroads.json").read_text())
    facts.pop("digest")
    facts["files"]["metrics.json"] = file_record(old / "metrics.json")
    (old / "crossroads.json").write_text(manifest_text({**facts, "format": 1}))
    for use in (
        lambda: crossroads.fit(source, out=old, recipe=QUICK, epochs=6, resume=True),
        lambda: crossroads.evaluate(old, source),
        lambda: crossroads.load(old),
    ):
        with refused("other-format", ArtifactError):
            use()


def test_evaluate_warns_about_images_that_the_artifact_was_trained_on(run, source, tmp_path):
    watcher = Notes()
    crossroads.evaluate(run.artifact, source, watcher=watcher)
    facts = open_verified(run.artifact).facts["data"]
    [note] = coded(watcher, "seen-in-training")
    assert note.figures == {"seen": facts["n"], "images": facts["n"] + facts["splits"]["test"]["n"]}
    watcher = Notes()
    crossroads.evaluate(run.artifact, stripes(20, seed=9), watcher=watcher)
    assert not coded(watcher, "seen-in-training")


def test_equal_images_stay_in_one_split(tmp_path, solved):
    images, labels = stripes(40)
    watcher = Notes()
    twice = (np.concatenate([images, images]), np.tile(labels, 2))
    run = crossroads.fit(twice, out=tmp_path / "run", recipe=solved, watcher=watcher)
    assert [run.metrics[side]["seen_in_training"] for side in ("validation", "test")] == [0, 0]
    assert "40 duplicate images were kept in the same split as their copies" in watcher.said
    again = crossroads.fit(twice, out=tmp_path / "run", recipe=solved, resume=True)
    assert again.metrics == run.metrics


def test_validation_images_that_are_also_in_train_are_reported(tmp_path, solved, monkeypatch):
    monkeypatch.setattr(results, "FEW", 0)  # no cross-validation, which keeps equal images together
    images, labels = stripes(40)
    rows = tmp_path / "rows.csv"
    folder = folder_of(tmp_path / "images", images, labels)
    paths = sorted(folder.rglob("*.png"))
    lines = [f"{path},{path.parent.name},a{path.stem}" for path in paths]
    for path in paths:
        copied = path.with_stem(f"{path.stem}-copy")
        shutil.copy(path, copied)
        lines.append(f"{copied},{path.parent.name},b{path.stem}")
    rows.write_text("path,label,group\n" + "\n".join(lines))
    watcher = Notes()
    run = crossroads.fit(rows, out=tmp_path / "run", recipe=solved, watcher=watcher)
    seen = run.metrics["validation"]["seen_in_training"]
    assert 0 < seen <= run.metrics["validation"]["n"]
    [note] = coded(watcher, "validation-seen-in-training")
    assert note.figures == {"images": seen, "total": 16}


def test_flip_is_refused_if_classes_are_mirror_images(tmp_path):
    size, n = 16, 40
    slope = np.tile(np.arange(size) * 15, (size, 1))
    noise = np.random.default_rng(0).normal(0, 5, (n, size, size, 1))
    left = np.arange(n) % 2 == 0
    clean = np.where(left[:, None, None], slope, slope[:, ::-1])[..., None]
    pixels = (clean + noise).clip(0, 255).astype(np.uint8).repeat(3, axis=3)
    data = (pixels, np.where(left, "left", "right"))
    with refused("unsafe-flip", RecipeError, field="augmentation"):
        crossroads.fit(data, out=tmp_path / "run", recipe=QUICK, augmentation=Augmentation(flip=True))


def test_missing_data_is_refused(tmp_path):
    with refused("no-data", DataError, field="data"):
        crossroads.fit(out=tmp_path / "run")


def test_only_the_test_part_of_a_split_is_scored(run, tmp_path):
    images, labels = stripes(20, seed=9)
    data = folder_of(tmp_path / "split", images[:12], labels[:12], split="train")
    folder_of(data, images[12:], labels[12:], split="test")
    assert crossroads.evaluate(run.artifact, data).n == 8


def test_parity_is_checked_on_images_from_the_whole_data():
    from crossroads.data.images import Resize
    from crossroads.run.finish import _parity
    from crossroads.run.results import UsedImages

    images, labels = stripes(1000)
    dataset = crossroads.read((images, labels))
    pixels = np.arange(1000, dtype=np.int64)[:, None]
    side = UsedImages(dataset, np.zeros((1000, 16), np.uint8), (), pixels)
    training = SimpleNamespace(validation=side, probabilities=None)
    chosen = _parity(training, Resize(16)).images[:, 0]
    assert len(chosen) == len(set(chosen)) == 256
    assert (chosen[0], chosen[-1]) == (0, 999)
    assert np.diff(chosen).max() <= 4
    assert len(_parity(training, Resize(600)).images) == 64
    probabilities = np.arange(2000, dtype=np.float32).reshape(1000, 2)
    decoded = _parity(SimpleNamespace(validation=replace(side, pixels=None), probabilities=probabilities), Resize(16))
    np.testing.assert_array_equal(decoded.images, images[chosen])
    np.testing.assert_array_equal(decoded.probabilities, probabilities[chosen])
