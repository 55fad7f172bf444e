"""Covers the names of models, and what happens when a folder gets a new artifact."""

import gc
import shutil
import threading
import time
import weakref
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from crossroads import artifact
from crossroads.errors import ArtifactError, RecipeError
from crossroads.predictor import Predictor
from crossroads.serve.metrics import Metrics
from crossroads.serve.models import Model, parse_models
from crossroads.serve.settings import Settings
from picture_files import pictures
from refusals import refused
from tiny_artifact import contents


def reloads(metrics):
    """Returns how many new artifacts were loaded or refused, by outcome."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {s.labels["outcome"]: s.value for family in families for s in family.samples if s.name == "crossroads_reloads_total"}


@pytest.fixture
def folder(tmp_path, first) -> Path:
    return Path(shutil.copytree(first, tmp_path / "run"))


def answer_of(served, picture):
    return served.loaded.predictor.predict([picture])[0]


def put(source, target):
    """Replaces the files of an artifact, in any order, as a copy does."""
    for path in source.iterdir():
        shutil.copy(path, target / path.name)


def check_twice(served, metrics):
    """Checks for a new artifact until its files count as complete."""
    served.check(metrics)
    served.check(metrics)


def test_models_are_named_by_their_folders_or_explicitly(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b").mkdir()  # a folder of this name wins over a model called a
    assert parse_models(["runs/photos"]) == {"photos": Path("runs/photos")}
    assert parse_models(["p=runs/photos", "q=/x/y=z"]) == {"p": Path("runs/photos"), "q": Path("/x/y=z")}
    assert parse_models(["fünf/größe"]) == {"model": Path("fünf/größe")}
    assert parse_models(["a=b"]) == {"model": Path("a=b")}
    with refused("repeated-name", RecipeError):
        parse_models(["a/x", "b/x"])
    for bad in ("=x", "a b=x", "../a=x", "é=x"):
        with refused("invalid-name", RecipeError):
            parse_models([bad])


def test_a_folder_without_an_artifact_is_refused(tmp_path):
    with refused("not-an-artifact", ArtifactError):
        Model("none", tmp_path)


def test_a_new_artifact_replaces_the_old_one(folder, second):
    metrics, served, (picture,) = Metrics(), Model("m", folder), pictures(1)
    before = served.loaded
    check_twice(served, metrics)
    assert served.loaded is before
    put(second, folder)
    served.check(metrics)
    assert served.loaded is before  # its files may still be copied
    served.check(metrics)
    assert answer_of(served, picture) == Predictor.load(second).predict([picture])[0]
    assert served.facts()["accuracy"]["accuracy"] == 0.9
    assert reloads(metrics) == {"loaded": 1}


def test_an_artifact_with_other_classes_and_another_size_replaces_the_old_one(folder):
    served = Model("m", folder)
    shutil.rmtree(folder)
    artifact.write(folder, contents(classes=("a", "b", "c", "d", "e")), {})
    check_twice(served, Metrics())
    assert served.loaded.predictor.classes == ("a", "b", "c", "d", "e")


@pytest.mark.parametrize("damage", ["model.bin", "crossroads.json", "everything"])
def test_a_damaged_artifact_is_refused_and_the_old_one_stays(folder, first, damage):
    metrics, served, (picture,) = Metrics(), Model("m", folder), pictures(1)
    expected = Predictor.load(first).predict([picture])[0]
    if damage == "everything":
        shutil.rmtree(folder)
    else:
        (folder / damage).write_bytes(b"{}")
    check_twice(served, metrics)
    check_twice(served, metrics)
    assert answer_of(served, picture) == expected
    assert served.facts()["new_artifact_refused"]
    assert reloads(metrics) == {"refused": 1}
    shutil.copytree(first, folder, dirs_exist_ok=True)
    check_twice(served, metrics)
    assert not served.facts()["new_artifact_refused"]


def test_requests_during_replacements_get_the_answer_of_one_of_the_artifacts(connect, folder, first, second):
    (picture,) = pictures(1)
    allowed = [Predictor.load(run).predict([picture])[0].to_json()["labels"] for run in (first, second)]
    with connect(m=folder, reload_seconds=0.02) as client:
        seen, stop = [], threading.Event()

        def ask():
            while not stop.is_set():
                answer = client.post("/v1/predict", content=picture, headers={"content-type": "image/png"})
                seen.append((answer.status_code, answer.json()["predictions"][0]["labels"]))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        service = client.app.state.service
        for source in (second, first, second):
            put(source, folder)
            expected = Predictor.load(source).manifest.files
            end = time.monotonic() + 30
            while service.models.default.loaded.predictor.manifest.files != expected and time.monotonic() < end:
                time.sleep(0.01)
            assert service.models.default.loaded.predictor.manifest.files == expected
        stop.set()
        for thread in threads:
            thread.join()
    assert {status for status, _ in seen} == {200}
    for _, labels in seen:
        assert any([r["label"] for r in labels] == [r["label"] for r in right] for right in allowed)


def test_nothing_of_the_old_artifact_stays_in_memory(connect, folder, second):
    (picture,) = pictures(1)
    with connect(m=folder) as client:
        service = client.app.state.service
        for _ in range(2):
            for path in ("/v1/predict", "/v1/explain"):
                assert client.post(path, content=picture, headers={"content-type": "image/png"}).status_code == 200
            if service.models.default.loaded.facts["accuracy"] is None:
                old = weakref.ref(service.models.default.loaded.predictor)
                put(second, folder)
                check_twice(service.models.default, service.metrics)
        gc.collect()
        assert old() is None


@pytest.mark.parametrize(
    "options", [{"max_files": 0}, {"max_body": 0}, {"max_pixels": 10**9}, {"max_files": 65, "max_waiting": 64}], ids=str
)
def test_limits_must_make_sense(options):
    with refused("out-of-range", RecipeError, field=next(iter(options))):
        Settings(**options)
