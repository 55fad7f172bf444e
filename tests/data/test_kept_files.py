"""Covers data sets that keep the files that they have read."""

from dataclasses import replace

import numpy as np
import pytest

from crossroads.data.kept_files import keep_files
from crossroads.data.readers import read
from pictures import folder_of, stripes


class Counted:
    """Counts the files that are read in full."""

    def __init__(self, images):
        self._images, self.count = images, 0

    def __getattr__(self, name):
        return getattr(self._images, name)

    def __len__(self):
        return len(self._images)

    def read(self, index):
        self.count += 1
        return self._images.read(index)

    def name(self, index):
        return self._images.name(index)

    def size(self, index):
        return self._images.size(index)

    def head(self, index, size):
        return self._images.head(index, size)

    def short_digest(self, index):
        return self._images.short_digest(index)


@pytest.mark.parametrize(("kept", "reads"), [(6, 6), (4, 8), (0, 12)])
def test_a_file_is_read_once_up_to_the_limit(tmp_path, kept, reads):
    """Six files of one size are read twice."""
    dataset = read(folder_of(tmp_path, *stripes(6), suffix="bmp"))
    counted = Counted(dataset.images)
    keeping = keep_files(replace(dataset, images=counted), most=kept * len(dataset.read(0)))
    for _ in range(2):
        assert [keeping.read(row) for row in range(6)] == [dataset.read(row) for row in range(6)]
    assert counted.count == reads


def test_images_in_memory_are_not_kept_twice():
    dataset = read((np.zeros((4, 8, 8, 3), np.uint8), [0, 1, 0, 1]))
    assert keep_files(dataset) is dataset
