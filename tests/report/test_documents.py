"""Covers the documents of a run: fit writes them, they can be made again, and no failure of theirs loses a run."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import crossroads
from crossroads import artifact, cli
from crossroads.errors import ArtifactError, CrossroadsWarning
from crossroads.evaluation import evaluate
from crossroads.progress import Relay, Silent
from crossroads.report import documents
from crossroads.report.thumbnails import NO_THUMBNAILS
from pictures import folder_of, stripes
from refusals import refused

OPTIONS = {
    "strategy": "from-scratch",
    "backbone": "quiz-cnn",
    "image_size": 16,
    "epochs": 2,
    "batch_size": 16,
    "validation": 0.2,
    "test_fraction": 0.3,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("stripes"), *stripes(100, classes=("level", "upright", "slanted")))


@pytest.fixture(scope="module")
def fitted(data, tmp_path_factory):
    return crossroads.fit(data, out=tmp_path_factory.mktemp("run") / "run", **OPTIONS)


@pytest.fixture
def run(fitted, tmp_path):
    return shutil.copytree(fitted.artifact, tmp_path / "run")


def test_fit_writes_the_report_and_the_model_card(fitted):
    names = {path.name for path in fitted.artifact.iterdir()}
    assert {artifact.REPORT, artifact.CARD, artifact.THUMBNAILS, artifact.HELD_OUT} <= names
    page = (fitted.artifact / artifact.REPORT).read_text(encoding="utf-8")
    assert page.count("<img") >= 12
    assert 'id="training"' in page


def test_the_stored_predictions_are_those_that_the_scores_are_computed_from(fitted):
    held_out = artifact.read_held_out(fitted)
    for split in ("test", "validation"):
        made, scores = getattr(held_out, split), fitted.metrics[split]
        probabilities = np.zeros((len(made), 3))
        np.put_along_axis(probabilities, made.top_labels.astype(int), made.top_probabilities, axis=1)
        again = evaluate(probabilities, made.labels, ("level", "slanted", "upright"))
        assert again.confusion_matrix.tolist() == scores["confusion_matrix"]
        assert again.loss == pytest.approx(scores["loss"], abs=1e-5)
        assert len({digest.tobytes() for digest in made.digests}) == scores["n"]


def test_the_report_can_be_made_again_from_the_artifact_alone(run):
    before = (run / artifact.REPORT).read_text(encoding="utf-8")
    (run / artifact.REPORT).unlink()
    assert crossroads.write_report(run) == run / artifact.REPORT
    assert (run / artifact.REPORT).read_text(encoding="utf-8").count("<img") == before.count("<img")
    artifact.open_verified(run)


def test_an_artifact_of_an_earlier_version_has_a_report_too(run):
    for name in (artifact.HELD_OUT, *artifact.DOCUMENTS):
        (run / name).unlink()
    facts = json.loads((run / artifact.MANIFEST).read_text())
    del facts["files"][artifact.HELD_OUT], facts["digest"]
    (run / artifact.MANIFEST).write_text(artifact._draft.manifest_text(facts))
    page = crossroads.write_report(run).read_text(encoding="utf-8")
    assert 'id="confusion"' in page
    assert 'id="reliability"' not in page


def test_a_report_on_other_images(run, data, tmp_path):
    out = crossroads.write_report(run, data, out=tmp_path / "other.html", watcher=crossroads.Silent())
    page = out.read_text(encoding="utf-8")
    assert str(data) in page
    assert page.count("<img") >= 12
    assert "What an audit of the scored images found" in page
    bare = crossroads.write_report(run, data, out=tmp_path / "bare.html", thumbnails=False, watcher=crossroads.Silent())
    assert "<img" not in bare.read_text(encoding="utf-8")


def test_only_an_earlier_report_is_replaced(run, tmp_path):
    (tmp_path / "mine.html").write_text("mine")
    with refused("not-a-report", ArtifactError, field="out"):
        crossroads.write_report(run, out=tmp_path / "mine.html")
    crossroads.write_report(run, out=tmp_path / "new.html")
    crossroads.write_report(run, out=tmp_path / "new.html")


@pytest.mark.parametrize("error", [OSError("disk full"), ValueError("a bug"), KeyboardInterrupt()])
def test_a_report_that_fails_is_a_warning(run, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(documents, "report_page", fail)
    (run / artifact.REPORT).unlink()
    relay = Relay(Silent())
    documents.document_run(run, (), relay, thumbnails=True, seconds=9)
    assert [note.code for note in relay.warnings] == [
        "report-stopped" if isinstance(error, KeyboardInterrupt) else "report-not-written"
    ]
    assert not (run / artifact.REPORT).exists()


@pytest.mark.parametrize(
    ("left", "limit", "maps"), [(float("inf"), 5.0, True), (900, 2.0, True), (1.0, 1.0, True), (-5, 0.5, False)]
)
def test_pictures_are_limited_by_the_budget(run, data, monkeypatch, left, limit, maps):
    given = []

    def make(_predictions, _images, _resize, heat_maps, seconds):
        given.append((heat_maps is not None, seconds))
        return NO_THUMBNAILS

    monkeypatch.setattr(documents, "make_thumbnails", make)
    documents.document_run(run, (), Silent(), thumbnails=True, seconds=left)
    assert given[0][0] == maps
    assert given[0][1] <= limit


def test_a_report_that_fails_loses_no_run(data, tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "report_page", lambda _: 1 / 0)
    with pytest.warns(CrossroadsWarning, match="the report was not written"):
        run = crossroads.fit(data, out=tmp_path / "run", **OPTIONS | {"epochs": 1})
    artifact.open_verified(run)
    assert crossroads.load(run).classes == ("level", "slanted", "upright")
    assert not (run.artifact / artifact.REPORT).exists()


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs one command in this process. Returns its exit code and its output."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["crossroads", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            cli.main()
        return done.value.code or 0, capsys.readouterr().out

    return run


def test_fit_without_a_report(command, tmp_path, monkeypatch, fitted):
    given = {}
    monkeypatch.setattr("crossroads.api.fit", lambda *_, **options: given.update(options) or fitted)
    assert command("fit", "data", "--out", tmp_path / "run", "--no-report", "--quiet")[0] == 0
    assert (given["report"], given["thumbnails"]) == (False, True)


def test_fit_without_pictures(command, data, tmp_path):
    options = [text for name, value in OPTIONS.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    assert command("fit", data, "--out", tmp_path / "run", *options, "--no-thumbnails", "--quiet")[0] == 0
    assert "<img" not in (tmp_path / "run" / artifact.REPORT).read_text(encoding="utf-8")
    assert not (tmp_path / "run" / artifact.THUMBNAILS).exists()


def test_the_commands_about_finished_runs(command, run, fitted):
    (run / artifact.REPORT).unlink()
    assert command("report", run) == (0, f"{run / artifact.REPORT}\n")
    code, shown = command("compare", fitted.artifact, run)
    assert code == 0
    assert "are right on the same images" in shown
    assert (
        json.loads(command("compare", fitted.artifact, run, "--json")[1])["differences"][0]["images"] == fitted.metrics["test"]["n"]
    )
    code, shown = command("info", run)
    assert shown.startswith(f"artifact: {run}")
    assert json.loads(command("info", run, "--json")[1])["strategy"] == "from-scratch"
