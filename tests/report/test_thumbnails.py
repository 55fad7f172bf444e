"""Covers the small pictures: which are chosen, that they are those of the right images, and the time limit."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from crossroads import artifact
from crossroads.artifact._held_out import predictions_of
from crossroads.data.images import Resize
from crossroads.data.loading import digests_of
from crossroads.data.readers import read
from crossroads.report.thumbnails import (
    CELLS,
    MISTAKES,
    NO_THUMBNAILS,
    UNSURE,
    make_thumbnails,
    read_thumbnails,
    wanted,
    write_thumbnails,
)
from report_subjects import predictions

N = 30


def coloured(n=N):
    """Returns one grey image per row, each of another brightness."""
    return np.repeat(np.arange(40, 40 + 5 * n, 5, dtype=np.uint8), 24 * 24 * 3).reshape(n, 24, 24, 3)


@pytest.fixture(scope="module")
def data():
    return read((coloured(), np.array(["a", "b", "c"])[np.arange(N) % 3]))


@pytest.fixture(scope="module")
def made(data):
    rng = np.random.default_rng(0)
    return predictions_of(data, digests_of(data), rng.dirichlet(np.ones(3), N).astype(np.float32))


def grey(picture):
    return int(np.asarray(Image.open(io.BytesIO(picture))).mean().round())


def plain(pixels, classes):
    """Draws heat maps that are the images themselves."""
    assert len(pixels) == len(classes)
    return [Image.fromarray(image) for image in pixels]


def maps():
    return "cam", plain


def test_the_galleries_and_the_cells_are_chosen():
    many, _ = predictions(k=43, n=3000)
    rows = wanted(many)
    assert len(rows.with_maps) == MISTAKES + UNSURE
    assert len(rows.others) <= CELLS
    assert not set(rows.with_maps) & set(rows.others)


def test_each_row_has_its_own_picture(made, data):
    found = make_thumbnails(made, [data], Resize(24), maps, 60)
    assert found.method == "cam"
    rows = found.rows_of(made)
    assert set(rows) == {row for part in wanted(made) for row in part}
    for row, index in rows.items():
        assert abs(grey(found.pictures[index]) - (40 + 5 * row)) <= 1
        assert bool(found.maps[index]) == (row in wanted(made).with_maps)


def test_images_that_changed_have_no_picture(made, data):
    other = read((coloured()[::-1].copy(), np.array(["a", "b", "c"])[np.arange(N) % 3]))
    assert not make_thumbnails(made, [other], Resize(24), None, 60).pictures
    assert len(make_thumbnails(made, [other, data], Resize(24), None, 60).pictures) == N


def test_what_is_not_made_in_time_is_left_out(made, data):
    found = make_thumbnails(made, [data], Resize(24), maps, -1)
    assert len(found.pictures) < N
    assert not any(found.maps)
    assert found.method == ""


def test_pictures_come_back_as_they_were(made, data, tmp_path):
    given = make_thumbnails(made, [data], Resize(24), maps, 60)
    write_thumbnails(tmp_path / artifact.THUMBNAILS, given)
    found = read_thumbnails(tmp_path)
    assert (found.pictures, found.maps, found.method) == (given.pictures, given.maps, "cam")
    assert np.array_equal(found.digests, given.digests)


@pytest.mark.parametrize("content", [None, b"", b"no archive", b"PK\x03\x04"])
def test_a_missing_or_damaged_file_means_no_pictures(tmp_path, content):
    if content is not None:
        (tmp_path / artifact.THUMBNAILS).write_bytes(content)
    assert read_thumbnails(tmp_path) is NO_THUMBNAILS
