"""Covers the decoded pixels of a run: unused files are removed, and files of a kept result stay."""

import numpy as np

from crossroads.data.partition import load_and_split
from crossroads.progress import Silent
from crossroads.recipe import Recipe
from crossroads.run import task
from crossroads.run.task import Tasks
from pictures import stripes


def test_files_of_forgotten_pixels_are_removed_once_nothing_maps_them(tmp_path, monkeypatch):
    monkeypatch.setattr(task, "IN_MEMORY", 0)
    recipe = Recipe(strategy="from-scratch", image_size=24, validation=0.25, test_fraction=0.0)
    tasks = Tasks(load_and_split(stripes(40, size=16), None, recipe, Silent()), tmp_path, None, Silent())
    kept = tasks.task_for(recipe).decode()[0]
    before = np.array(kept.pixels)
    assert len(list(tmp_path.iterdir())) == 2
    tasks._forget_pixels()
    assert [path.name.partition("-")[0] for path in tmp_path.iterdir()] == ["train"]
    again = tasks.task_for(recipe).decode()[0]
    assert np.array_equal(kept.pixels, before)
    assert np.array_equal(again.pixels, before)
    del kept, again
    tasks._forget_pixels()
    assert list(tmp_path.iterdir()) == []
