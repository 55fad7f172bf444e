"""Covers `crossroads explain`: pictures, lines, JSON, and one clear error for each mistake."""

import json
import shutil
import sys

import numpy as np
import pytest
from explained import brightness, fitted_head, patched, saved
from PIL import Image

from crossroads import cli
from crossroads.artifact import Neighbours
from crossroads.data.images import Resize
from crossroads.explain.files import _drawn
from tiny_graphs import SIZE


@pytest.fixture
def crossroads(monkeypatch, capsys):
    """Runs one command in this process. Returns exit code, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["crossroads", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as done:
            code = done.code or 0
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Returns an artifact whose class 1 is an image with a white patch."""
    found, _ = patched(6)
    part = brightness()
    kept = Neighbours(np.eye(3, dtype=np.float16)[:2], np.array([0, 1], np.int32), np.array(["grey.png", "white.png"]))
    return saved(tmp_path_factory.mktemp("run") / "run", part, fitted_head(part, found, np.full_like(found, 100)), kept)


@pytest.fixture
def photo(tmp_path):
    """Returns the path of an image with a patch, and the corner of the patch."""
    pixels, corners = patched(1, seed=4)
    Image.fromarray(pixels[0]).save(tmp_path / "photo.png")
    return tmp_path / "photo.png", corners[0]


def test_a_picture_shows_the_image_and_its_heat_map(crossroads, run, photo, tmp_path):
    path, (top, left) = photo
    code, out, _ = crossroads("explain", run, path, "--out", tmp_path / "heat")
    assert (code, out) == (0, f"{path}: class 1 {_probability(out)}, cam: {tmp_path / 'heat' / 'photo.explained.png'}\n")
    drawn = np.asarray(Image.open(tmp_path / "heat" / "photo.explained.png")).astype(int)
    assert drawn.shape == (SIZE, 2 * SIZE, 3)
    np.testing.assert_array_equal(drawn[:, :SIZE], np.asarray(Image.open(path)))
    brightest = drawn[:, SIZE:].sum(axis=2)
    assert brightest[top : top + 4, left : left + 4].min() >= 2 * np.median(brightest)


def _probability(out):
    return out.split(",")[0].split()[-1]


def test_json_lists_explanations_and_refusals(crossroads, run, photo, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    other = tmp_path / "other"
    other.mkdir()
    again = shutil.copy(photo[0], other)
    asked = ("--out", tmp_path / "heat", "--nearest", 1, "--class", "class 0", "--json")
    code, out, err = crossroads("explain", run, photo[0], broken, again, *asked)
    answer = json.loads(out)
    assert code == 2
    assert err.startswith("error: ")
    assert [each["name"] for each in answer["refused"]] == [str(broken)]
    first, second = answer["explanations"]
    assert (first["label"], first["method"]) == ("class 0", "cam")
    assert first["probability"] < 0.5
    assert first["nearest"][0].keys() == {"name", "label", "similarity"}
    assert [first["file"], second["file"]] == [str(tmp_path / "heat" / f"photo{end}.explained.png") for end in ("", "-2")]


def test_the_nearest_training_images_need_no_folder(crossroads, run, photo):
    code, out, _ = crossroads("explain", run, photo[0], "--nearest", 2)
    first, *rest = out.splitlines()
    assert (code, len(rest)) == (0, 2)
    assert "cam" not in first
    assert {line.split()[-1] for line in rest} == {"grey.png", "white.png"}


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (None, ("--out", "heat", "--class", "clas 1"), "did you mean 'class 1'?"),
        (None, (), "--out or --nearest must be given"),
        (None, ("--out", "photo.png"), "must be writable"),
        ("model.bin", ("--out", "heat"), "was changed"),
        ("crossroads.json", ("--out", "heat"), "must be JSON"),
        ("neighbours.npz", ("--nearest", "1"), "was changed"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(crossroads, run, photo, monkeypatch, tmp_path, change, arguments, message):
    monkeypatch.chdir(tmp_path)
    copy = shutil.copytree(run, tmp_path / "copy")
    if change:
        (copy / change).write_bytes((copy / change).read_bytes()[:-20])
    code, out, err = crossroads("explain", copy, photo[0], *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize(
    ("how", "box"),
    [
        (Resize(16), (0, 0, 60, 40)),
        (Resize(16, "crop", crop_fraction=0.5), (20, 10, 40, 30)),
        (Resize(16, "squash", crop_fraction=0.5), (15, 10, 45, 30)),
    ],
)
def test_a_map_is_drawn_where_the_network_looks(how, box):
    picture = np.full((40, 60, 3), 100, np.uint8)
    drawn = np.asarray(_drawn(picture, np.ones((16, 16), np.float32), how)).astype(int)[:, 60:]
    left, top, right, bottom = box
    seen = np.zeros((40, 60), bool)
    seen[top:bottom, left:right] = True
    assert how.box(60, 40) == box
    assert drawn[seen].sum(axis=1).min() > 400
    if not seen.all():
        assert drawn[~seen].sum(axis=1).max() < 200
