"""The sample that evidence is measured on."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from crossroads.advice import sample as module
from crossroads.advice.sample import compact, merge_duplicates, part, sample
from rows import dataset


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=8, max_size=80).filter(lambda rows: len(set(rows)) > 1),
    st.integers(4, 60),
    st.integers(0, 3),
)
def test_it_holds_rows_of_every_class_once_and_no_more_than_its_share(labels, most, seed):
    found = dataset(labels)
    rows = sample(found, most, seed)
    assert len(set(rows.tolist())) == len(rows)
    assert (np.diff(rows) > 0).all()
    counts, drawn = found.counts(), found.select(rows).counts()
    assert ((drawn > 0) == (counts > 0)).all()
    assert (drawn <= np.maximum(np.ceil(counts * most / len(found)), 3)).all() or len(found) <= most


def test_frames_of_many_objects_come_before_many_frames_of_few():
    groups = np.repeat(np.arange(40), 10)
    found = dataset((groups % 2).tolist(), groups)
    rows = sample(found, 40, 0)
    assert len(np.unique(groups[rows])) == 40
    counts = np.unique(groups[rows], return_counts=True)[1]
    assert (counts == 2).all()  # a second one of each, to see how alike they are


def test_images_that_are_the_same_are_in_one_group_whatever_groups_they_came_in():
    digests = np.zeros((6, 16), np.uint8)
    digests[:, 0] = [1, 2, 1, 3, 4, 2]
    assert merge_duplicates(None, digests).tolist() == merge_duplicates(None, digests)[[2, 5, 0, 3, 4, 1]].tolist()
    assert len(set(merge_duplicates(None, digests).tolist())) == 4
    tied = merge_duplicates(np.array([7, 7, 8, 8, 9, 9]), digests)  # 1 ties 7 and 8, 2 ties 7 and 9
    assert len(set(tied.tolist())) == 1
    digests[:, 0] = range(6)
    assert merge_duplicates(None, digests) is None


def test_of_very_many_classes_some_are_drawn(monkeypatch):
    monkeypatch.setattr(module, "MOST_CLASSES", 5)
    found = dataset((np.arange(60) % 20).tolist())
    chosen = compact(found.select(sample(found, 1000, 0)))
    assert len(chosen.classes) == 5
    assert chosen.counts().tolist() == [3] * 5
    assert set(chosen.classes) <= set(found.classes)


def test_a_part_keeps_groups_whole_and_every_class():
    groups = np.repeat(np.arange(30), 4)
    labels = groups % 3
    rows = part(labels, groups, 0.25, np.random.default_rng(0))
    assert set(labels[rows]) == {0, 1, 2}
    assert all((np.isin(np.flatnonzero(groups == group), rows)).all() for group in np.unique(groups[rows]))
    assert len(rows) == 24  # two of ten groups would be 0.2, three 0.3; 0.25 rounds to two of each class
