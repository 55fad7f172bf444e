"""The sample that evidence is measured on."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from crossroads.advice import sample as module
from crossroads.advice.sample import compact, merge_duplicates, random_part, sample
from rows import dataset


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=8, max_size=80).filter(lambda rows: len(set(rows)) > 1),
    st.integers(4, 60),
    st.integers(0, 3),
)
def test_a_sample_has_distinct_rows_of_every_class_in_proportion(labels, most, seed):
    images = dataset(labels)
    rows = sample(images, most, seed)
    assert len(set(rows.tolist())) == len(rows)
    assert (np.diff(rows) > 0).all()
    counts, drawn = images.counts(), images.select(rows).counts()
    assert ((drawn > 0) == (counts > 0)).all()
    assert (drawn <= np.maximum(np.ceil(counts * most / len(images)), 3)).all() or len(images) <= most


def test_all_groups_are_sampled_before_their_further_images():
    groups = np.repeat(np.arange(40), 10)
    images = dataset((groups % 2).tolist(), groups)
    rows = sample(images, 40, 0)
    assert len(np.unique(groups[rows])) == 40
    counts = np.unique(groups[rows], return_counts=True)[1]
    assert (counts == 2).all()  # a second one of each group shows how similar its images are


def test_groups_with_equal_images_are_merged():
    digests = np.zeros((6, 16), np.uint8)
    digests[:, 0] = [1, 2, 1, 3, 4, 2]
    assert merge_duplicates(None, digests).tolist() == merge_duplicates(None, digests)[[2, 5, 0, 3, 4, 1]].tolist()
    assert len(set(merge_duplicates(None, digests).tolist())) == 4
    merged = merge_duplicates(np.array([7, 7, 8, 8, 9, 9]), digests)  # digest 1 links groups 7 and 8, digest 2 links 7 and 9
    assert len(set(merged.tolist())) == 1
    digests[:, 0] = range(6)
    assert merge_duplicates(None, digests) is None


def test_some_of_very_many_classes_are_drawn(monkeypatch):
    monkeypatch.setattr(module, "MOST_CLASSES", 5)
    images = dataset((np.arange(60) % 20).tolist())
    chosen = compact(images.select(sample(images, 1000, 0)))
    assert len(chosen.classes) == 5
    assert chosen.counts().tolist() == [3] * 5
    assert set(chosen.classes) <= set(images.classes)


def test_a_random_part_keeps_groups_whole_and_every_class():
    groups = np.repeat(np.arange(30), 4)
    labels = groups % 3
    indices = random_part(labels, groups, 0.25, np.random.default_rng(0))
    assert set(labels[indices]) == {0, 1, 2}
    assert all((np.isin(np.flatnonzero(groups == group), indices)).all() for group in np.unique(groups[indices]))
    assert len(indices) == 24  # two of ten groups would be 0.2, three 0.3; 0.25 rounds to two of each class
