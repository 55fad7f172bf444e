"""Pictures and labels that a program holds, in the forms that other libraries give them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossroads.data.dataset import TEST, TRAIN, VALIDATION
from crossroads.data.images import decode
from crossroads.data.pictures import source_of
from crossroads.data.readers import read
from crossroads.errors import DataError, ImageRefused

PIXELS = np.random.default_rng(2).integers(0, 256, (6, 7, 5, 3), dtype=np.uint8)
LABELS = [3, 1, 3, 2, 1, 10]
PILLOW = [Image.fromarray(image) for image in PIXELS]


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    for number, image in enumerate(PILLOW):
        image.save(f"{number}.png")
    return [f"{number}.png" for number in range(len(PILLOW))]


def labels_of(dataset) -> list[str]:  # type: ignore[no-untyped-def]
    return [dataset.row(row).label for row in range(len(dataset))]


def encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


class Column:
    """A column of a table, as pandas has it: no sequence, but NumPy takes it."""

    def __init__(self, values: list[object]) -> None:
        self.values = values

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return np.array(self.values, object)

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.values)


def forms(paths: list[str]) -> dict[str, object]:
    return {
        "Pillow images": PILLOW,
        "a tuple of Pillow images": tuple(PILLOW),
        "bytes": [encoded(image) for image in PILLOW],
        "texts": paths,
        "paths": [Path(path) for path in paths],
        "an array of texts": np.array(paths),
        "an array of objects": np.array(paths, object),
        "a column of a table": Column(list(paths)),
        "absolute paths": [Path(path).absolute() for path in paths],
        "a mixture": [PILLOW[0], paths[1], PIXELS[2], encoded(PILLOW[3]), Path(paths[4]), PIXELS[5] / 255],
    }


@pytest.mark.parametrize("form", list(forms([""] * 6)))
def test_every_form_of_a_list_is_the_same_pixels(form: str, paths: list[str]) -> None:
    dataset = read((forms(paths)[form], LABELS))
    assert labels_of(dataset) == list(map(str, LABELS))
    assert np.array_equal(np.stack([decode(dataset.read(row)) for row in range(6)]), PIXELS)
    assert dataset.notes == ()


def test_a_row_is_named_by_its_path_or_its_place(paths: list[str]) -> None:
    dataset = read(([paths[4], PILLOW[0]], [0, 1]))
    assert [dataset.name(0), dataset.name(1)] == ["4.png", "images[1]"]


def test_missing_files_are_counted_and_named(paths: list[str]) -> None:
    with pytest.raises(DataError, match=r"5 of 11 paths .*gone0\.png, gone1\.png, gone2\.png, …; .*working directory"):
        read(([*paths, *(f"gone{number}.png" for number in range(5))], [0] * 11))


def test_two_pairs_are_train_and_test_and_three_have_a_validation() -> None:
    pair = (PIXELS, np.array(LABELS))
    for two in ((pair, pair), [list(pair), list(pair)], ((PILLOW, LABELS), (PILLOW, LABELS))):
        dataset = read(two)
        assert dataset.splits is not None
        assert dataset.splits.tolist() == [TRAIN] * 6 + [TEST] * 6
    assert dataset.name(7) == "x_test[1]"
    assert labels_of(dataset) == [*map(str, LABELS), *map(str, LABELS)]
    three = read((pair, (PIXELS[:2], [[1], [2]]), pair))  # labels of shape (n, 1), as keras.datasets.cifar10 has them
    assert three.splits is not None
    assert three.splits.tolist() == [TRAIN] * 6 + [VALIDATION] * 2 + [TEST] * 6


def test_pairs_of_paths_are_a_split_too(paths: list[str]) -> None:
    dataset = read(((paths[:4], LABELS[:4]), (paths[4:], LABELS[4:])))
    assert dataset.splits is not None
    assert dataset.splits.tolist() == [TRAIN] * 4 + [TEST] * 2


@pytest.mark.parametrize(
    "labels",
    [[0, 1], ["a", "b"], np.array([0, 1]), [[1, 0], [0, 1]], [(1, 0), (0, 1)], np.eye(2), [np.array([1, 0]), np.array([0, 1])]],
)
@pytest.mark.parametrize(
    "images",
    [
        PIXELS[:2], [*PIXELS[:2]], (PIXELS[0], PIXELS[1]), [*PIXELS[:2, ..., 0]], PILLOW[:2], tuple(PILLOW[:2]),
        [encoded(PILLOW[0]), encoded(PILLOW[1])], PIXELS[:2].tolist(), [PIXELS[0], PIXELS[1, ..., 0]],
    ],
)  # fmt: skip
def test_two_images_with_two_labels_are_no_split(images: object, labels: object) -> None:
    for source in ((images, labels), [images, labels]):
        dataset = read(source)
        assert len(dataset) == 2
        assert dataset.splits is None


def test_a_split_of_two_images_each_is_a_split() -> None:
    dataset = read((([*PILLOW[:2]], ["a", "b"]), ([*PILLOW[2:4]], ["a", "b"])))
    assert dataset.splits is not None
    assert dataset.splits.tolist() == [TRAIN] * 2 + [TEST] * 2


def test_labels_of_another_number_name_the_side() -> None:
    with pytest.raises(DataError, match="x_test must have one label for each image; received 6 images and 5 labels"):
        read(((PIXELS, LABELS), (PIXELS, LABELS[:5])))


@pytest.mark.parametrize(("image", "label"), [("image", "label"), ("img", "class"), ("x", "y")])
def test_records_are_read(image: str, label: str) -> None:
    records = [{image: one, label: name, "id": 7} for one, name in zip(PILLOW, LABELS, strict=True)]
    for source in (records, tuple(records), records[:2]):
        dataset = read(source)
        assert labels_of(dataset) == list(map(str, LABELS))[: len(source)]
        assert np.array_equal(decode(dataset.read(1)), PIXELS[1])


def test_a_mapping_may_hold_any_pictures(paths: list[str]) -> None:
    assert np.array_equal(decode(read({"images": paths, "labels": LABELS}).read(2)), PIXELS[2])


class TorchLike:
    """A map-style data set: examples by number."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, number: int) -> tuple[object, int]:
        return PILLOW[number], LABELS[number]


class HuggingFaceLike(TorchLike):
    column_names = ("image", "label")


class DataFrame:
    columns = ("path", "label")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (TorchLike(), r"received TorchLike; .*for image, _ in data"),
        (HuggingFaceLike(), r"data\['image'\]"),
        (DataFrame(), r"DataFrame with the columns path, label; .*table\['path'\]"),
        ((one for one in zip(PILLOW, LABELS, strict=True)), r"generator; .*zip\(\*data\)"),
        (((one for one in PILLOW), LABELS), r"images must be .* generator"),
        ((TorchLike(), LABELS), r"images must be .* TorchLike"),
        (list(zip(PILLOW, LABELS, strict=True)), r"6 pairs of one image and its label; .*zip\(\*pairs\)"),
        (list(zip(PILLOW[:2], LABELS[:2], strict=True)), r"2 pairs of one image"),
        ([(PIXELS[0], "a"), (PIXELS[1], "b")], r"2 pairs of one image"),
        ([("a.png", 0), ("b.png", 1)], r"2 pairs of one image"),
        ([(b"raw", "a"), (b"raw", "b"), (b"raw", "a")], r"3 pairs of one image"),
        ((PIXELS, LABELS, PIXELS, LABELS), r"x_train, y_train.*; received a tuple of 4"),
        ((PIXELS,), r"x_train, y_train.*; received a tuple of 1"),
        ([], "a list of 0"),
        ((PILLOW[0], 3), "images must be an array or a list"),
        ((b"raw", 3), "images must be an array or a list"),
        ([{"image": PILLOW[0], "label": 0}, {"image": PILLOW[1]}], "record"),
        ([{"pixel_values": 1, "label": 0}], "record.*'pixel_values'"),
        ({"train": (PIXELS, LABELS)}, "'train'"),
        (7, "received int"),
    ],
)
def test_what_is_something_else_says_what_to_give(source: object, told: str) -> None:
    with pytest.raises(DataError, match=told):
        read(source)


SIDES = ["train", "train", "test", "train", "val", ""]


@pytest.mark.parametrize("split", [SIDES, np.array(SIDES), tuple(SIDES)])
@pytest.mark.parametrize("groups", [[1, 1, 2, 2, 3, 3], np.array([1, 1, 2, 2, 3, 3]), list("aabbcc")])
def test_a_mapping_may_hold_splits_and_groups(split: object, groups: object) -> None:
    dataset = read({"x": PIXELS, "y": LABELS, "groups": groups, "split": split})
    assert [dataset.row(row).split for row in range(6)] == ["train", "train", "test", "train", "validation", ""]
    assert dataset.groups is not None
    assert len(set(dataset.groups.tolist())) == 3


def test_records_may_hold_splits_and_groups() -> None:
    records = [
        {"image": one, "label": 1, "split": side, "group": at // 2}
        for at, (one, side) in enumerate(zip(PILLOW, SIDES, strict=True))
    ]
    dataset = read(records)
    assert dataset.splits is not None
    assert dataset.splits.tolist() == [TRAIN, TRAIN, TEST, TRAIN, VALIDATION, 0]
    assert dataset.groups is not None
    assert len(set(dataset.groups.tolist())) == 3
    assert any("'id'" in note for note in read([record | {"id": 3} for record in records]).notes)


def test_a_test_set_beside_x_and_y_is_read() -> None:
    dataset = read({"x": PIXELS, "y": LABELS, "x_test": PIXELS[:2], "y_test": LABELS[:2]})
    assert dataset.splits is not None
    assert dataset.splits.tolist() == [TRAIN] * 6 + [TEST] * 2


@pytest.mark.parametrize(
    ("beside", "told"),
    [
        ({"weights": [1] * 6}, "the key 'weights'"),
        ({"x_train": PIXELS, "y_train": LABELS}, "'x' beside 'x_train'"),
        ({"x_test": PIXELS}, "the key 'x_test'"),
        ({"split": ["train"] * 5}, "6 images and 5 splits"),
        ({"split": ["train"] * 5 + ["elsewhere"]}, "'elsewhere'"),
        ({"groups": "abcdef"}, "groups must have one value"),
    ],
)
def test_a_key_that_is_not_read_is_refused(beside: dict[str, object], told: str) -> None:
    with pytest.raises(DataError, match=told):
        read({"x": PIXELS, "y": LABELS} | beside)


class Tensor:
    """A tensor that records gradients, as PyTorch has it."""

    shape = (6, 7, 5, 3)

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")

    def detach(self) -> None: ...


@pytest.mark.parametrize(
    "source", [(Tensor(), LABELS), {"x": Tensor(), "y": LABELS}, ([Tensor()] * 6, LABELS), ((Tensor(), LABELS), (Tensor(), LABELS))]
)
def test_a_tensor_that_records_gradients_is_refused_with_the_way_out(source: object) -> None:
    with pytest.raises(DataError, match=r"call \.detach\(\)\.numpy\(\)"):
        read(source)


def test_such_a_tensor_is_no_picture_either() -> None:
    with pytest.raises(ImageRefused, match=r"call \.detach\(\)\.numpy\(\)"):
        source_of(Tensor())


@pytest.mark.parametrize("form", [list, tuple])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_images_without_labels_are_refused_for_want_of_labels(paths: list[str], form: type, count: int) -> None:
    for items, unit in (
        (paths, "string"),
        (list(map(Path, paths)), "path"),
        (PILLOW, "image"),
        (list(map(encoded, PILLOW)), "image"),
    ):
        with pytest.raises(DataError) as caught:
            read(form(items[:count]))
        assert caught.value.rule == "labels are missing"
        assert f"of {count} {unit}" in str(caught.value.received)
        assert "(images, labels)" in str(caught.value.hint)
    with pytest.raises(DataError) as caught:
        read((PILLOW[0], "cat"))  # has a label
    assert caught.value.rule != "labels are missing"
