"""Splits partition the rows, keep groups whole, contain every class, depend on the seed alone, and read no image."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossroads.data._draws import _closest_subset
from crossroads.data.dataset import NO_SPLIT, TEST, TRAIN, VALIDATION, Dataset
from crossroads.data.splits import SealedTest, Splits, split, split_digest
from crossroads.errors import SealedTestError, SplitError
from crossroads.progress import Note
from refusals import refused


class Untouchable:
    """A source that can name its images and fails if one is read."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def name(self, index: int) -> str:
        return f"image{index}.png"

    def read(self, index: int) -> bytes:
        raise AssertionError(f"split read image {index}")


def dataset(
    labels: Sequence[int],
    groups: Sequence[int] | None = None,
    splits: Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
) -> Dataset:
    n = len(labels)
    names = tuple(classes or (f"c{i}" for i in range(max(labels, default=0) + 1)))
    return Dataset(
        "made up",
        Untouchable(n),
        np.arange(n),
        np.array(labels, np.int32),
        names,
        None if groups is None else np.array(groups, np.int64),
        None if splits is None else np.array(splits, np.uint8),
    )


def parts(result: Splits) -> list[Dataset]:
    return [result.train, result.validation] + ([] if result.test is None else [result.test.unseal()])


def notes(result: Splits) -> dict[str, dict[str, object]]:
    """The figures of each note, by code."""
    assert all(isinstance(note, Note) for note in result.notes)
    return {note.code: note.figures for note in result.notes}


def rows(result: Splits) -> list[list[int]]:
    return [part.indices.tolist() for part in parts(result)]


@st.composite
def grouped(draw: st.DrawFn) -> Dataset:
    """A data set in which each class has three groups or more, rows in any order."""
    labels, groups = [], []
    for label in range(draw(st.integers(1, 4))):
        for size in draw(st.lists(st.integers(1, 12), min_size=3, max_size=12)):
            group = len(set(groups))
            labels += [label] * size
            groups += [group] * size
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(labels))
    renumbered = np.random.default_rng(1).permutation(1000)[np.array(groups)]
    return dataset(np.array(labels)[order].tolist(), renumbered[order].tolist())


fractions = st.floats(0.01, 0.45)


@settings(deadline=None)
@given(data=grouped(), validation=fractions, test=st.just(0.0) | fractions, seed=st.integers(0, 2**31 - 1))
def test_laws_of_a_split(data: Dataset, validation: float, test: float, seed: int) -> None:
    result = split(data, validation=validation, test=test, seed=seed)
    drawn = parts(result)
    assert (result.test is None) == (test == 0)
    # The parts share no row and leave none out, and each keeps the order of the data.
    assert sorted(row for part in rows(result) for row in part) == list(range(len(data)))
    assert all(part == sorted(part) for part in rows(result))
    # No group is cut.
    groups = [set(part.groups.tolist()) for part in drawn]
    assert sum(map(len, groups)) == len(set().union(*groups))
    # Every class is in every split, within one group of its fraction.
    for label in range(len(data.classes)):
        mine = data.groups[data.labels == label]
        largest = np.unique(mine, return_counts=True)[1].max()
        for part, fraction in zip(drawn[1:], [validation, test][: len(drawn) - 1], strict=True):
            count = int((part.labels == label).sum())
            assert count >= 1
            assert abs(count - fraction * len(mine)) <= largest
        assert (drawn[0].labels == label).any()
    # The same seed gives the same split.
    assert rows(split(data, validation=validation, test=test, seed=seed)) == rows(result)


@settings(deadline=None, max_examples=50)
@given(counts=st.lists(st.integers(3, 200), min_size=1, max_size=4), validation=fractions, test=fractions)
def test_without_groups_the_fraction_is_met_to_the_image(counts: list[int], validation: float, test: float) -> None:
    labels = np.repeat(np.arange(len(counts)), counts).tolist()
    result = split(dataset(labels), validation=validation, test=test, seed=0)
    for label, count in enumerate(counts):
        assert abs((result.test.unseal().labels == label).sum() - max(1, test * count)) <= 0.5 + 1e-9 or count < 6
        assert abs((result.validation.labels == label).sum() - max(1, validation * count)) <= 0.5 + 1e-9 or count < 6


def test_another_seed_gives_another_split() -> None:
    data = dataset([0] * 100)
    assert rows(split(data, validation=0.2, test=0.2, seed=0)) != rows(split(data, validation=0.2, test=0.2, seed=1))


def test_the_draw_of_a_class_does_not_depend_on_other_classes() -> None:
    alone = dataset([0] * 20, [i // 2 for i in range(20)], classes=("signs",))
    # The same class as the second of two, between rows of the other, its groups under other numbers.
    labels = [label for _ in range(20) for label in (0, 1)]
    groups = [group for i in range(20) for group in (i // 5, 500 - i // 2)]
    beside = dataset(labels, groups, classes=("other", "signs"))
    first = split(alone, validation=0.3, test=0.2, seed=7)
    second = split(beside, validation=0.3, test=0.2, seed=7)
    for part, whole in zip(parts(first), parts(second), strict=True):
        assert part.indices.tolist() == (whole.indices[whole.labels == 1] // 2).tolist()


def test_groups_are_chosen_so_that_the_fraction_of_images_is_met() -> None:
    sizes = [50, 30, 10, 5, 3, 2]
    groups = np.repeat(np.arange(6), sizes).tolist()
    for seed in range(20):
        result = split(dataset([0] * 100, groups), validation=0.1, test=0, seed=seed)
        assert 8 <= len(result.validation) <= 12, seed  # shuffled groups alone would give anything from 2 to 50


@pytest.mark.parametrize(
    ("sizes", "target", "limit", "expected"),
    [
        ([20, 30, 10, 5, 50, 3], 40, 5, [30, 10]),  # the example in the docstring
        ([7], 1, 1, [7]),  # an empty choice always takes one
        ([7, 2], 1, 1, [2]),
        ([5, 5], 3, 0, []),
    ],
)
def test_the_subset_with_a_sum_near_the_target(sizes: list[int], target: float, limit: int, expected: list[int]) -> None:
    assert np.array(sizes)[_closest_subset(np.array(sizes), target, limit)].tolist() == expected


def test_one_image_per_class_and_split_is_enough() -> None:
    result = split(dataset([0, 0, 0, 1, 1, 1]), validation=0.1, test=0.1, seed=0)
    assert [sorted(part.labels.tolist()) for part in parts(result)] == [[0, 1]] * 3


TAIL = [1, 2, 1, 3, 2, 9, 30]
"""Groups, or images, of each class of a long-tailed set."""


def test_small_classes_are_trained_on_and_named_in_one_note() -> None:
    data = dataset(np.repeat(np.arange(7), TAIL).tolist())
    result = split(data, validation=0.1, test=0.1, seed=0)
    counts = np.array([part.counts() for part in parts(result)])
    assert counts.T.tolist()[:5] == [[1, 0, 0], [1, 0, 1], [1, 0, 0], [1, 1, 1], [1, 0, 1]]
    assert notes(result) == {
        "classes-too-small": {
            "too_small": ["c0", "c1", "c2", "c4"],
            "classes": 7,
            "missing_from": {"validation": 4, "test": 2},
        }
    }


def test_without_a_test_two_images_are_enough_for_validation() -> None:
    result = split(dataset([0, 1, 1, 2, 2, 2]), validation=0.1, test=0, seed=0)
    assert [part.counts().tolist() for part in parts(result)] == [[1, 1, 2], [0, 1, 1]]
    assert notes(result)["classes-too-small"]["too_small"] == ["c0"]


def test_strict_names_all_classes_that_are_too_small() -> None:
    data = dataset([0] * 30 + [1] * 9 + [2] * 4, [1] * 30 + [2, 3, 4] * 3 + [5, 5, 6, 6])
    assert [len(set(part.groups.tolist())) for part in parts(split(data, validation=0.2, test=0.2, seed=0))] == [3, 1, 2]
    for some, test, received in (
        (data, 0.2, "'c0' (30 images, 1 group), 'c2' (4 images, 2 groups)"),
        (data, 0, "'c0' (30 images, 1 group)"),
        (dataset([0, 0, 1]), 0, "'c1' (1 image)"),
    ):
        with refused("class-too-small", SplitError, received=received):
            split(some, validation=0.2, test=test, seed=0, strict=True)
    split(dataset([0] * 3 + [1] * 3), validation=0.2, test=0.2, seed=0, strict=True)


@pytest.mark.parametrize(
    ("labels", "groups", "test"),
    [
        ([0, 1], None, 0.0),
        ([0, 0, 1, 1], None, 0.1),
        ([0, 1, 2], None, 0.1),
        ([0] * 9 + [1] * 9, [1] * 9 + [2] * 9, 0.0),
        ([0, 1] * 4, [1] * 4 + [2] * 4, 0.1),
    ],
)
def test_a_split_without_images_is_refused(labels: list[int], groups: list[int] | None, test: float) -> None:
    with refused("empty-split", SplitError):
        split(dataset(labels, groups), validation=0.1, test=test, seed=0)


def test_equal_images_of_a_small_class_stay_together() -> None:
    labels, numbers = [0, 0] + [1] * 10, [50, 50, *range(10)]
    result = split(with_digests(dataset(labels), numbers), validation=0.1, test=0.1, seed=0)
    assert [part.counts()[0] for part in parts(result)] == [2, 0, 0]


def test_classes_missing_from_a_given_split_are_reported_once() -> None:
    splits = [TRAIN] * 12 + [TEST] * 3
    result = split(dataset([0] * 10 + [1, 2] + [0, 0, 1], splits=splits), validation=0.2, test=0.1, seed=0)
    assert [note.code for note in result.notes] == ["split-taken-from-train", "classes-too-small", "classes-missing-from-split"]
    assert notes(result)["classes-too-small"]["too_small"] == ["c1", "c2"]
    assert notes(result)["classes-missing-from-split"] == {"split": "test", "absent": ["c2"], "classes": 3}
    other = dataset([0, 0], classes=("c0", "c1"))
    result = split(dataset([0] * 10 + [1] * 10), validation=0.2, test=0.1, seed=0, separate_test=other)
    assert notes(result) == {"classes-missing-from-split": {"split": "test", "absent": ["c1"], "classes": 2}}


@st.composite
def long_tailed(draw: st.DrawFn) -> Dataset:
    """Classes of one group or more, some of whose groups may hold other classes too, rows in any order."""
    labels, groups = [], []
    for label in range(draw(st.integers(1, 5))):
        for size in draw(st.lists(st.integers(1, 5), min_size=1, max_size=6)):
            groups += [len(set(groups))] * size
            labels += [label] * size
    if draw(st.booleans()):
        joined = draw(st.lists(st.sampled_from(groups), min_size=2, max_size=2))
        groups = [joined[0] if group == joined[1] else group for group in groups]
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(labels))
    return dataset(np.array(labels)[order].tolist(), np.array(groups)[order].tolist())


@settings(deadline=None)
@given(data=long_tailed(), validation=fractions, test=st.just(0.0) | fractions, seed=st.integers(0, 99), strict=st.booleans())
def test_laws_of_a_split_with_small_classes(data: Dataset, validation: float, test: float, seed: int, strict: bool) -> None:
    needed = 2 + (test > 0)
    per_class = [len(np.unique(data.groups[data.labels == label])) for label in range(len(data.classes))]
    try:
        result = split(data, validation=validation, test=test, seed=seed, strict=strict)
    except SplitError:
        mixed = len({*zip(data.groups.tolist(), data.labels.tolist(), strict=True)}) > len(set(data.groups.tolist()))
        assert mixed or max(per_class) < needed or (strict and min(per_class) < needed)
        return
    drawn = parts(result)
    assert sorted(row for part in rows(result) for row in part) == list(range(len(data)))
    groups = [set(part.groups.tolist()) for part in drawn]
    assert sum(map(len, groups)) == len(set().union(*groups))
    assert result.train.counts().all()
    assert all(len(part) for part in drawn)
    assert not strict or min(per_class) >= needed
    assert ("classes-too-small" in notes(result)) == (min(per_class) < needed)
    assert rows(split(data, validation=validation, test=test, seed=seed)) == rows(result)


@settings(deadline=None, max_examples=30)
@given(rare=st.lists(st.integers(1, 2), min_size=1, max_size=4), test=st.sampled_from([0.0, 0.2]), seed=st.integers(0, 99))
def test_another_small_class_moves_no_row_of_the_others(rare: list[int], test: float, seed: int) -> None:
    labels = np.repeat([0, 1], [20, 7]).tolist()
    more = labels + np.repeat(np.arange(len(rare)) + 2, rare).tolist()
    without, beside = (split(dataset(some), validation=0.2, test=test, seed=seed) for some in (labels, more))
    assert [[row for row in part if row < len(labels)] for part in rows(beside)] == rows(without)


@pytest.mark.parametrize(
    ("validation", "test", "code", "field"),
    [
        (0, 0.1, "fraction-out-of-range", "validation"),
        (0.95, 0, "fraction-out-of-range", "validation"),
        (float("nan"), 0, "fraction-out-of-range", "validation"),
        (0.5, 0.5, "fractions-leave-no-train", "validation"),
        (0.1, -0.1, "fraction-out-of-range", "test_fraction"),
    ],
)
def test_fractions_out_of_range_are_refused(validation: float, test: float, code: str, field: str) -> None:
    with refused(code, SplitError, field=field):
        split(dataset([0] * 10), validation=validation, test=test, seed=0)


def test_a_complete_split_in_the_data_is_kept() -> None:
    splits = [TRAIN] * 5 + [VALIDATION] * 3 + [TEST] * 2
    result = split(dataset([0, 1] * 5, splits=splits), validation=0.5, test=0.4, seed=3)
    assert rows(result) == [[0, 1, 2, 3, 4], [5, 6, 7], [8, 9]]
    assert result.notes == ()


def test_validation_is_taken_from_train_if_the_data_has_only_train_and_test() -> None:
    result = split(dataset([0] * 50, splits=[TRAIN] * 40 + [TEST] * 10), validation=0.25, test=0.4, seed=0)
    assert [len(part) for part in parts(result)] == [30, 10, 10]
    assert rows(result)[2] == list(range(40, 50))
    assert notes(result) == {"split-taken-from-train": {"split": "validation", "fraction": 0.25}}


def test_the_test_is_taken_from_train_if_the_data_has_only_train_and_validation() -> None:
    data = dataset([0] * 50, splits=[TRAIN] * 40 + [VALIDATION] * 10)
    result = split(data, validation=0.25, test=0.1, seed=0)
    assert rows(result)[1] == list(range(40, 50))
    assert [len(part) for part in parts(result)] == [36, 10, 4]
    assert notes(result) == {"split-taken-from-train": {"split": "test", "fraction": 0.1}}
    assert split(data, validation=0.25, test=0, seed=0).test is None


def test_rows_without_a_split_go_to_train_if_others_have_one() -> None:
    result = split(
        dataset([0] * 8, splits=[NO_SPLIT] * 3 + [TRAIN] + [VALIDATION] * 2 + [TEST] * 2), validation=0.5, test=0.4, seed=0
    )
    assert rows(result) == [[0, 1, 2, 3], [4, 5], [6, 7]]
    assert notes(result) == {"rows-without-split": {"rows": 3}}


def test_a_separate_test_set_replaces_any_other() -> None:
    locked = dataset([0] * 6)
    result = split(dataset([0] * 20), validation=0.25, test=0.4, seed=0, separate_test=locked)
    assert [len(part) for part in parts(result)] == [15, 5, 6]
    assert result.test.unseal() is locked
    result = split(dataset([0] * 20, splits=[TRAIN] * 12 + [TEST] * 8), validation=0.25, test=0.4, seed=0, separate_test=locked)
    assert [len(part) for part in parts(result)] == [9, 3, 6]
    assert notes(result)["test-rows-ignored"] == {"rows": 8}
    with refused("classes-differ", SplitError):
        split(dataset([0] * 20), validation=0.25, test=0, seed=0, separate_test=dataset([0, 1]))
    with refused("empty-test", SplitError):
        split(dataset([0] * 20), validation=0.25, test=0, seed=0, separate_test=locked.select(np.arange(0)))


def test_a_group_that_the_split_in_the_data_divides_is_kept_and_noted() -> None:
    result = split(dataset([0] * 4, [7, 7, 7, 8], [TRAIN, VALIDATION, TEST, TEST]), validation=0.5, test=0.4, seed=0)
    assert rows(result) == [[0], [1], [2, 3]]
    assert notes(result) == {"groups-across-splits": {"groups": 1, "example": "image0.png"}}


def test_a_class_missing_from_a_given_split_is_noted() -> None:
    result = split(dataset([0, 1, 0, 0, 1], splits=[TRAIN, TRAIN, VALIDATION, TEST, TEST]), validation=0.5, test=0.4, seed=0)
    assert notes(result) == {"classes-missing-from-split": {"split": "validation", "absent": ["c1"], "classes": 2}}


def test_a_class_without_images_is_noted() -> None:
    result = split(dataset([0] * 10, classes=("a", "never")), validation=0.2, test=0, seed=0)
    assert len(result.validation) == 2
    missing = [note.figures for note in result.notes if note.code == "classes-missing-from-split"]
    assert {"split": "train", "absent": ["never"], "classes": 2} in missing


def test_no_rows_to_train_on_is_an_error() -> None:
    with refused("no-training-rows", SplitError):
        split(dataset([0] * 3, splits=[TEST] * 3), validation=0.2, test=0, seed=0)
    with refused("no-training-rows", SplitError):
        split(dataset([], classes=("a",)), validation=0.2, test=0, seed=0)


def test_groups_of_several_classes_stay_whole() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 4)
    labels = np.concatenate([np.sort(rng.integers(0, 3, 4)) for _ in range(30)])
    result = split(dataset(labels.tolist(), groups.tolist()), validation=0.2, test=0.2, seed=0)
    groups_of_parts = [set(part.groups.tolist()) for part in parts(result)]
    assert sum(map(len, groups_of_parts)) == 30 == len(set().union(*groups_of_parts))
    assert all(set(part.labels.tolist()) == {0, 1, 2} for part in parts(result))
    assert notes(result)["mixed-groups"]["groups"] > 0


def test_groups_of_several_classes_may_keep_a_class_out_of_a_split_but_not_of_train() -> None:
    # Each class is in two of three groups, so a split of one group always lacks one class.
    data = dataset([0, 1, 0, 2, 1, 2], [1, 1, 2, 2, 3, 3])
    result = split(data, validation=0.3, test=0, seed=0)
    assert [part.counts().tolist().count(0) for part in parts(result)] == [0, 1]
    assert notes(result)["classes-missing-from-split"]["split"] == "validation"
    with refused("class-bound-by-groups", SplitError):
        split(data, validation=0.3, test=0, seed=0, strict=True)


def test_many_small_classes_in_mixed_groups_are_all_trained_on() -> None:
    labels = np.concatenate([np.arange(300), np.repeat([300, 301], 150)])
    groups = np.concatenate([np.arange(300) // 2, 150 + np.arange(300) // 10])
    result = split(dataset(labels.tolist(), groups.tolist()), validation=0.2, test=0.2, seed=0)
    assert result.train.counts().all()
    assert [np.count_nonzero(part.counts()) for part in parts(result)[1:]] == [2, 2]


def test_a_sealed_test_answers_only_its_size_and_classes() -> None:
    data = dataset([0, 1, 1])
    sealed = SealedTest(data)
    assert (sealed.n, len(sealed), sealed.classes) == (3, 3, ("c0", "c1"))
    assert repr(sealed) == "SealedTest(n=3)"
    for touch in (
        lambda: sealed.labels,
        lambda: sealed.read(0),
        lambda: sealed.images,
        lambda: sealed.select([0]),
        lambda: sealed[0],
        lambda: list(sealed),
        lambda: sealed._dataset,
    ):
        with refused("test-sealed", SealedTestError):
            touch()
    with pytest.raises(AttributeError):
        sealed.labels = None
    assert sealed.unseal() is data
    assert pickle.loads(pickle.dumps(sealed)).n == copy.deepcopy(sealed).n == 3


def test_split_never_reads_an_image() -> None:
    data = dataset([0, 1] * 30, [i // 4 for i in range(60)])
    result = split(data, validation=0.2, test=0.2, seed=0)
    with pytest.raises(AssertionError, match="split read image"):
        result.train.read(0)  # the source does fail if it is read


def test_many_rows_of_a_thousand_classes_are_split() -> None:
    rng = np.random.default_rng(0)
    groups = rng.permutation(200_000) // 10
    result = split(dataset((groups % 1000).tolist(), groups.tolist()), validation=0.1, test=0.1, seed=0)
    assert [len(part) for part in parts(result)] == [160_000, 20_000, 20_000]


EQUAL = [0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 10, 11, 12, 13, 14, 15, 16]


def with_digests(rows: Dataset, numbers: Sequence[int]) -> Dataset:
    return replace(rows, digests=np.array(numbers, np.uint8)[:, None].repeat(16, axis=1) + 1)


def test_duplicates_stay_in_one_split() -> None:
    rows = with_digests(dataset([0] * 10 + [1] * 10), EQUAL)
    for seed in range(8):
        parts = split(rows, validation=0.25, test=0.25, seed=seed)
        images = [set(np.array(EQUAL)[part.indices]) for part in (parts.train, parts.validation, parts.test.unseal())]
        assert sum(map(len, images)) == len(set(EQUAL)) == len(set.union(*images))
        assert notes(parts) == {"duplicates-kept-together": {"images": 3}}


def test_duplicates_are_separated_only_in_classes_with_too_few_distinct_images() -> None:
    twice, few = [row // 2 for row in range(40)], [50, 50, 50]
    for seed in range(8):
        parts = split(with_digests(dataset([0] * 40 + [1] * 3), twice + few), validation=0.1, test=0.1, seed=seed)
        assert parts.test is not None
        assert notes(parts) == {
            "duplicates-kept-together": {"images": 20},
            "duplicates-across-splits": {"classes": ["c1"]},
        }
        images = [set(np.array(twice + few)[part.indices]) for part in (parts.train, parts.validation, parts.test.unseal())]
        assert images[0] & images[1] == images[0] & images[2] == {50}
        plain = split(with_digests(dataset([0] * 40 + [1] * 3), [*twice, 50, 51, 52]), validation=0.1, test=0.1, seed=seed)
        assert set(plain.train.indices[plain.train.labels == 0]) == set(parts.train.indices[parts.train.labels == 0])


def test_images_that_are_all_equal_are_split_anyway() -> None:
    parts = split(with_digests(dataset([0] * 6 + [1] * 6), [0] * 12), validation=0.3, test=0.0, seed=0)
    assert (len(parts.train), len(parts.validation)) == (8, 4)
    assert notes(parts) == {"duplicates-across-splits": {"classes": ["c0", "c1"]}}


def test_groups_and_splits_in_the_data_take_precedence_over_duplicates() -> None:
    grouped = with_digests(dataset([0, 0, 0, 0, 1, 1, 1, 1], groups=[0, 1] * 2 + [2, 3] * 2), [0] * 8)
    parts = split(grouped, validation=0.5, test=0.0, seed=0)
    assert (len(parts.train), len(parts.validation), parts.notes) == (4, 4, ())
    brought = with_digests(dataset([0, 0, 0, 1, 1, 1], splits=[TRAIN, VALIDATION, TEST] * 2), [0] * 6)
    parts = split(brought, validation=0.5, test=0.2, seed=0)
    assert (len(parts.train), len(parts.validation), parts.notes) == (2, 2, ())


def test_the_digest_of_a_split_depends_on_its_content_alone() -> None:
    rng = np.random.default_rng(0)
    digests = rng.integers(0, 256, (40, 16), np.uint8)
    labels = rng.integers(0, 3, 40)
    digest = split_digest(digests, labels, ("a", "b", "c"))
    assert len(digest) == 32
    order = rng.permutation(40)
    assert split_digest(digests[order], labels[order], ("a", "b", "c")) == digest
    assert split_digest(digests, np.array([2, 1, 0])[labels], ("c", "b", "a")) == digest  # the name counts, not its index
    other = labels.copy()
    other[0] = (other[0] + 1) % 3
    assert split_digest(digests, other, ("a", "b", "c")) != digest
    assert split_digest(digests[:-1], labels[:-1], ("a", "b", "c")) != digest
    assert split_digest(digests[:0], labels[:0], ()) == split_digest(digests[:0], labels[:0], ("a",))


def test_no_track_of_the_real_signs_is_divided(shared_data: Path) -> None:
    import tarfile

    with tarfile.open(shared_data / "gtsrb_test_sample_32px.tar") as archive:
        names = [name for name in archive.getnames() if name.endswith(".csv")]
        table = archive.extractfile(names[0]).read().decode().split()[1:]
    labels = [int(line.split(";")[7]) for line in table]
    groups = [i // 2 for i in range(len(labels))]  # neighbours as tracks: several hold two classes
    data = dataset(labels, groups, classes=[str(i) for i in range(43)])
    result = split(data, validation=0.2, test=0, seed=0)
    assert not set(result.train.groups.tolist()) & set(result.validation.groups.tolist())
    assert set(result.validation.labels.tolist()) == set(result.train.labels.tolist()) == set(range(43))


def test_many_classes_and_one_group_of_two_of_them() -> None:
    k = 100
    labels = np.repeat(np.arange(k), 6)
    groups = np.arange(len(labels))
    groups[6] = groups[0]
    result = split(dataset(labels.tolist(), groups.tolist()), validation=0.2, test=0.2, seed=0)
    assert notes(result) == {"mixed-groups": {"groups": 1}}
    assert [np.count_nonzero(part.counts()) for part in parts(result)] == [k, k, k]


def test_groups_with_every_class_meet_the_fraction() -> None:
    """Each writer of digits has written every digit, so a few writers are enough for all classes."""
    labels = np.tile(np.arange(10), 13 * 9)
    groups = np.repeat(np.arange(13), 90)
    result = split(dataset(labels, groups), validation=0.1, test=0.1, seed=0)
    assert (len(result.validation), len(result.test or ())) == (90, 90)
