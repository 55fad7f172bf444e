"""Covers tables of predictions: their rows, continuing after a kill, bounded memory, hostile names, and sorted copies."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossroads import artifact
from crossroads.data.readers import unlabelled
from crossroads.data.readers.unlabelled import ImageFile, ImageList, list_images
from crossroads.errors import DataError
from crossroads.outputs import _journal
from crossroads.outputs.predictions import predict_files
from crossroads.predictor import Predictor
from killing import Killed
from refusals import refused
from tiny_artifact import CLASSES, contents, model, pixels
from watchers import Notes

SUFFIXES = (".csv", ".jsonl", ".parquet")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory) -> Predictor:
    run = tmp_path_factory.mktemp("artifact") / "run"
    artifact.write(run, contents(), {})
    return Predictor.load(run)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Returns 200 images, every 20th of which is broken."""
    home = tmp_path_factory.mktemp("images")
    for number, image in enumerate(pixels(200)):
        Image.fromarray(image).save(home / f"{number}.png")
        if number % 20 == 7:
            (home / f"{number}.png").write_bytes(b"broken")
    return home


def read_rows(path: Path) -> list[dict[str, object]]:
    """Returns the rows of a file of any format, without the columns that have no value."""
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            rows = [dict(row) for row in csv.DictReader(file)]
    elif path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    else:
        rows = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    return [{name: value for name, value in row.items() if value not in (None, "")} for row in rows]


def write(predictor, places, out, **options):
    watcher = Notes()
    listed = places if isinstance(places, ImageList) else list_images(places)
    return predict_files(predictor, listed, out=out, watcher=watcher, **options), watcher


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_each_image_has_a_row_in_order(predictor, folder, tmp_path, suffix):
    out = tmp_path / f"found{suffix}"
    written, _ = write(predictor, [folder], out, top=2)
    rows = read_rows(out)
    assert (written.images, written.refused) == (len(rows), 10) == (200, 10)
    assert [row["path"] for row in rows] == [str(folder / f"{number}.png") for number in range(200)]
    assert list(rows[0]) == ["path", "label", "probability", "label_2", "probability_2"]
    assert all((set(row) == {"path", "error"}) == (number % 20 == 7) for number, row in enumerate(rows))
    expected, _ = predictor.predict_each([row["path"] for row in rows], top=2)
    found = [row for row in rows if "label" in row]
    for row, prediction in zip(found, expected, strict=True):
        assert (row["label"], row["label_2"]) == tuple(ranked.label for ranked in prediction.labels)
        assert abs(float(row["probability_2"]) - prediction.labels[1].probability) < 1e-5
    assert os.listdir(tmp_path) == [out.name]  # noqa: PTH208


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("after", [1, 70, 199])
def test_an_interrupted_file_is_continued_to_the_same_file(predictor, folder, tmp_path, monkeypatch, suffix, after):
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"found{suffix}"
    write(predictor, [folder], whole)
    monkeypatch.setattr(_journal, "CHECKPOINT_SECONDS", 0)

    def kill(_):
        nonlocal after
        after -= 1
        if not after:
            raise Killed

    with pytest.raises(Killed):
        write(predictor, [folder], out, show=kill)
    assert not out.exists()
    written, watcher = write(predictor, [folder], out)
    assert written.images == 200
    assert (written.continued > 0) == ([note.code for note in watcher.said if note.code == "output-continued"] != [])
    if suffix == ".parquet":
        assert read_rows(out) == read_rows(whole)
    else:
        assert out.read_bytes() == whole.read_bytes()


def test_a_killed_process_leaves_whole_rows_only(predictor, folder, tmp_path):
    out, partial = tmp_path / "found.csv", tmp_path / "found.csv.partial"
    program = f"""
import time
from crossroads.data.readers.unlabelled import list_images
from crossroads.outputs import _journal
from crossroads.outputs.predictions import predict_files
from crossroads.predictor import Predictor
from crossroads.progress import Silent
_journal.CHECKPOINT_SECONDS = 0
predictor, images = Predictor.load({str(predictor.manifest.folder)!r}), list_images([{str(folder)!r}])
predict_files(predictor, images, out=_journal.Path({str(out)!r}), watcher=Silent(), show=lambda row: time.sleep(0.01))
"""
    process = subprocess.Popen([sys.executable, "-c", program])
    limit = time.monotonic() + 120
    while not (partial / "state.json").exists() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.01)
    process.kill()
    process.wait()
    with (partial / "rows").open("ab") as file:
        file.write(b'half,"a ro')  # what a kill within a write may leave
    written, _ = write(predictor, [folder], out)
    assert 0 < written.continued < 200
    write(predictor, [folder], tmp_path / "whole.csv")
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def interrupt(predictor, places, out, monkeypatch, **options):
    """Begins a file and ends after a few rows."""
    monkeypatch.setattr(_journal, "CHECKPOINT_SECONDS", 0)

    def kill(_):
        raise Killed

    with pytest.raises(Killed):
        write(predictor, places, out, show=kill, **options)


def test_another_list_artifact_or_option_does_not_continue_a_file(predictor, folder, tmp_path, monkeypatch):
    out, images = tmp_path / "found.csv", tmp_path / "images"
    shutil.copytree(folder, images)
    interrupt(predictor, [images], out, monkeypatch)
    with refused("partial-differs", DataError, received="another number of labels"):
        write(predictor, [images], out, top=2)
    artifact.write(tmp_path / "other", contents(model(seed=4)), {})
    with refused("partial-differs", DataError, received="another artifact"):
        write(Predictor.load(tmp_path / "other"), [images], out)
    (images / "199.png").rename(images / "one more.png")
    with refused("partial-differs", DataError, received="another list of images"):
        write(predictor, [images], out)
    (images / "one more.png").rename(images / "199.png")
    assert write(predictor, [images], out)[0].continued
    with refused("out-exists", DataError):
        write(predictor, [images], out)


def test_paths_from_the_standard_input_continue_only_with_the_same_first_paths(predictor, folder, tmp_path, monkeypatch):
    out = tmp_path / "found.csv"
    lines = [os.fsencode(folder / f"{number}.png") for number in range(100)]

    def give(paths):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n".join(paths))))

    give(lines)
    interrupt(predictor, ["-"], out, monkeypatch)
    give(lines[1:])
    with refused("partial-differs", DataError, received="another list of images"):
        write(predictor, ["-"], out)
    give(lines)
    written, _ = write(predictor, ["-"], out)
    assert written.images == len(read_rows(out)) == 100


@pytest.mark.parametrize("readable", [1, 0, 7])
def test_few_images_are_held_at_a_time_even_if_all_are_refused(predictor, tmp_path, readable):
    counts = {"taken": 0, "finished": 0, "most": 0}

    def images():
        for number in range(3_000):
            counts["taken"] += 1
            counts["most"] = max(counts["most"], counts["taken"] - counts["finished"])
            good = readable and number % readable == 0
            yield ImageFile(f"{number}", lambda good=good: pixels(1)[0] if good else b"broken")

    def show(_):
        counts["finished"] += 1

    listed = ImageList((unlabelled._Part(None, images),))
    written, _ = write(predictor, listed, tmp_path / "found.csv", show=show)
    assert written.images == counts["finished"] == 3_000
    assert counts["most"] < 1_000


HOSTILE = ('a,b".png', "=1+1.png", "+x.png", "-x.png", "@x.png", "new\nline.png", "carriage\rreturn.png", "tab\t'.png", "猫 é.png")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_stay_exact(predictor, tmp_path, suffix):
    home = tmp_path / "images"
    home.mkdir()
    for name in HOSTILE:
        Image.fromarray(pixels(1)[0]).save(home / "x.png")
        (home / "x.png").rename(home / name)
    (home / "x.png").write_bytes((home / name).read_bytes())
    os.rename(os.fsencode(home / "x.png"), os.fsencode(home) + b"/n\xe9.png")  # noqa: PTH104
    written, _ = write(predictor, [home], tmp_path / f"found{suffix}")
    names = {str(row["path"]).removeprefix(f"{home}/") for row in read_rows(tmp_path / f"found{suffix}")}
    assert names == {*HOSTILE, r"n\xe9.png"}
    assert written.refused == 0


def test_a_list_gives_one_row_per_line(predictor, folder, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_bytes(
        os.fsencode(folder / "3.png") + b"\r\n\n" + os.fsencode(folder / "3.png") + b"\nmissing.png\n" + b"n\xe9.png"
    )
    write(predictor, [listed, folder / "5.png"], tmp_path / "found.csv")
    rows = read_rows(tmp_path / "found.csv")
    assert [Path(str(row["path"])).name for row in rows] == ["3.png", "3.png", "missing.png", r"n\xe9.png", "5.png"]
    assert [name for name in map(list, rows) if "error" in name] == [["path", "error"]] * 2


def test_relative_paths_of_a_list_start_beside_it_or_else_here(predictor, folder, tmp_path, monkeypatch):
    (folder / "list.lst").write_text("4.png\n")
    assert [image.path for image in list_images([folder / "list.lst"])] == [str(folder / "4.png")]
    (folder / "list.lst").rename(tmp_path / "list.lst")
    monkeypatch.chdir(folder)
    assert [image.path for image in list_images([tmp_path / "list.lst"])] == ["4.png"]


def test_patterns_and_archives_are_listed_as_folders_are(folder, tmp_path):
    home = tmp_path / "photos"
    for place in ("b/10.png", "b/9.png", "a/deep/1.png", "notes.txt", ".hidden/1.png"):
        (home / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "1.png", home / place)
    inside = ["a/deep/1.png", "b/9.png", "b/10.png"]
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for place in ("b/10.png", "b/9.png", "a/deep/1.png", "notes.txt", ".hidden/1.png"):
            archive.write(home / place, place)
    for source in (home, f"{home}/*", f"{home}/**/*.png", tmp_path / "photos.zip"):
        listed = list_images([source])
        root = f"{source}/" if source == tmp_path / "photos.zip" else f"{home}/"
        assert [image.name.removeprefix(root) for image in listed] == inside
        assert listed.total == 3
        assert [note.code for note in listed.notes] == ([] if str(source).endswith(".png") else ["files-ignored"])
    (image, *_) = list_images([tmp_path / "photos.zip"])
    assert image.read() == (folder / "1.png").read_bytes()


@pytest.mark.parametrize("place", ["", "*.nothing", "empty.zip", "empty.txt"])
def test_no_image_is_an_error_that_leaves_nothing(predictor, tmp_path, place):
    home = tmp_path / "home"
    home.mkdir()
    if place == "empty.zip":
        with zipfile.ZipFile(home / place, "w") as archive:
            archive.writestr("notes.txt", "no image")
    elif place:
        (home / "empty.txt").write_text("\n")
    with refused("no-images", DataError):
        write(predictor, [home / place], tmp_path / "found.csv")
    assert os.listdir(tmp_path) == ["home"]  # noqa: PTH208


def test_if_all_are_refused_the_reasons_are_written(predictor, tmp_path):
    (tmp_path / "list.txt").write_text("one.png\ntwo.png")
    written, _ = write(predictor, [tmp_path / "list.txt"], tmp_path / "found.csv")
    assert (written.images, written.refused) == (2, 2)
    assert all("cannot be read" in str(row["error"]) for row in read_rows(tmp_path / "found.csv"))


def test_another_suffix_is_refused(predictor, folder, tmp_path):
    with refused("unknown-output-format", DataError, field="out"):
        write(predictor, [folder], tmp_path / "found.xlsx")


def test_a_second_process_does_not_write_the_same_file(predictor, folder, tmp_path):
    def again(_):
        with refused("out-in-use", DataError):
            write(predictor, [folder], tmp_path / "found.csv")
        raise Killed

    with pytest.raises(Killed):
        write(predictor, [folder], tmp_path / "found.csv", show=again)


@pytest.mark.parametrize("link", [False, True])
def test_images_are_sorted_without_a_loss(predictor, folder, tmp_path, monkeypatch, link):
    home, out, into = tmp_path / "images", tmp_path / "found.csv", tmp_path / "sorted"
    for part in ("one", "two"):
        shutil.copytree(folder, home / part)
    for number in range(200):  # in both folders the same names, with different contents
        shutil.copy(folder / f"{(number + 1) % 200}.png", home / "two" / f"{number}.png")
    interrupt(predictor, [home], out, monkeypatch, sort_into=into, link=link)
    write(predictor, [home], out, sort_into=into, link=link)
    for row in read_rows(out):
        if "label" in row:
            path = Path(str(row["path"]))
            copies = list((into / str(row["label"])).glob(f"{path.stem}*.png"))
            assert any(copy.read_bytes() == path.read_bytes() and copy.is_symlink() == link for copy in copies)
    written = sum("label" in row for row in read_rows(out))
    assert sum(path.is_file() for path in into.rglob("*")) == written
    assert not [path for path in into.rglob("*") if path.name.startswith(".")]


def test_sorted_copies_are_not_read_as_new_images(predictor, folder):
    with refused("sorted-inside-source", DataError):
        write(predictor, [folder], None, sort_into=folder / "sorted")


def test_class_names_become_different_folders():
    from crossroads.outputs._sorting import folder_names

    names = folder_names(("a/b", "a_b", "A_B", "..", "", "ok", 'x"<>|y', "end. "))
    assert names == ["a_b", "a_b-2", "A_B-3", "_", "_-2", "ok", "x____y", "end"]
    assert folder_names(CLASSES) == list(CLASSES)


def test_members_of_an_archive_are_sorted_but_not_linked(predictor, folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for number in range(3):
            archive.write(folder / f"{number}.png", f"x/{number}.png")
    write(predictor, [tmp_path / "photos.zip"], None, sort_into=tmp_path / "sorted")
    copies = sorted((tmp_path / "sorted").rglob("*.png"), key=lambda path: path.name)
    assert [path.read_bytes() for path in copies] == [(folder / path.name).read_bytes() for path in copies]
    assert len(copies) == 3
    with refused("link-into-archive", DataError):
        write(predictor, [tmp_path / "photos.zip"], None, sort_into=tmp_path / "links", link=True)


def test_a_stream_gives_predictions_and_refusals_in_order(predictor, folder):
    paths = [folder / f"{number}.png" for number in range(30)]
    found = list(predictor.stream(iter(paths), top=1))
    assert [answer.name for answer in found] == list(map(str, paths))
    assert [number for number, answer in enumerate(found) if isinstance(answer, Exception)] == [7, 27]
    assert np.isclose(sum(ranked.probability for ranked in next(predictor.stream(paths, top=5)).labels), 1)
