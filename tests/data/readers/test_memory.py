"""Images and labels in memory, in the forms that other libraries give them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from making import figures
from PIL import Image

from crossroads.data.dataset import TEST, TRAIN, VALIDATION
from crossroads.data.images import decode
from crossroads.data.pictures import source_of
from crossroads.data.readers import read
from crossroads.errors import DataError, ImageRefused
from refusals import refused

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
    """A column of a pandas table: not a sequence, but NumPy can convert it."""

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


def test_a_row_has_the_name_of_its_path_or_its_index(paths: list[str]) -> None:
    dataset = read(([paths[4], PILLOW[0]], [0, 1]))
    assert [dataset.name(0), dataset.name(1)] == ["4.png", "images[1]"]


def test_missing_files_are_counted_and_named(paths: list[str]) -> None:
    with refused("missing-files", DataError, received="gone0.png, gone1.png, gone2.png and 2 more"):
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


def test_a_wrong_number_of_labels_names_the_split() -> None:
    with refused("length-mismatch", DataError, received="6 images and 5 labels") as caught:
        read(((PIXELS, LABELS), (PIXELS, LABELS[:5])))
    assert caught.value.rule.startswith("x_test ")


@pytest.mark.parametrize(("image", "label"), [("image", "label"), ("img", "class"), ("x", "y")])
def test_records_are_read(image: str, label: str) -> None:
    records = [{image: picture, label: name, "id": 7} for picture, name in zip(PILLOW, LABELS, strict=True)]
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
    ("source", "code", "hint"),
    [
        (TorchLike(), "unknown-source", "for image, _ in data"),
        (HuggingFaceLike(), "unknown-source", "data['image']"),
        (DataFrame(), "unknown-source", "table['path']"),
        ((pair for pair in zip(PILLOW, LABELS, strict=True)), "unknown-source", "zip(*data)"),
        (((image for image in PILLOW), LABELS), "not-images", ""),
        ((TorchLike(), LABELS), "not-images", ""),
        (list(zip(PILLOW, LABELS, strict=True)), "unknown-source", "zip(*pairs)"),
        (list(zip(PILLOW[:2], LABELS[:2], strict=True)), "unknown-source", "zip(*pairs)"),
        ([(PIXELS[0], "a"), (PIXELS[1], "b")], "unknown-source", "zip(*pairs)"),
        ([("a.png", 0), ("b.png", 1)], "unknown-source", "zip(*pairs)"),
        ([(b"raw", "a"), (b"raw", "b"), (b"raw", "a")], "unknown-source", "zip(*pairs)"),
        ((PIXELS, LABELS, PIXELS, LABELS), "unknown-source", ""),
        ((PIXELS,), "unknown-source", ""),
        ([], "unknown-source", ""),
        ((PILLOW[0], 3), "not-images", ""),
        ((b"raw", 3), "not-images", ""),
        ([{"image": PILLOW[0], "label": 0}, {"image": PILLOW[1]}], "incomplete-record", "'image' and 'label'"),
        ([{"pixel_values": 1, "label": 0}], "incomplete-record", "'image' and 'label'"),
        ({"train": (PIXELS, LABELS)}, "no-pair", ""),
        (7, "unknown-source", "(images, labels)"),
    ],
)
def test_another_kind_of_source_is_refused_with_what_to_give(source: object, code: str, hint: str) -> None:
    with refused(code, DataError) as caught:
        read(source)
    assert hint in (caught.value.hint or "")


SPLIT_NAMES = ["train", "train", "test", "train", "val", ""]


@pytest.mark.parametrize("split", [SPLIT_NAMES, np.array(SPLIT_NAMES), tuple(SPLIT_NAMES)])
@pytest.mark.parametrize("groups", [[1, 1, 2, 2, 3, 3], np.array([1, 1, 2, 2, 3, 3]), list("aabbcc")])
def test_a_mapping_may_hold_splits_and_groups(split: object, groups: object) -> None:
    dataset = read({"x": PIXELS, "y": LABELS, "groups": groups, "split": split})
    assert [dataset.row(row).split for row in range(6)] == ["train", "train", "test", "train", "validation", ""]
    assert dataset.groups is not None
    assert len(set(dataset.groups.tolist())) == 3


def test_records_may_hold_splits_and_groups() -> None:
    records = [
        {"image": image, "label": 1, "split": split, "group": at // 2}
        for at, (image, split) in enumerate(zip(PILLOW, SPLIT_NAMES, strict=True))
    ]
    dataset = read(records)
    assert dataset.splits is not None
    assert dataset.splits.tolist() == [TRAIN, TRAIN, TEST, TRAIN, VALIDATION, 0]
    assert dataset.groups is not None
    assert len(set(dataset.groups.tolist())) == 3
    assert figures(read([record | {"id": 3} for record in records]), "keys-ignored") == [{"keys": ["id"]}]


def test_a_test_set_beside_x_and_y_is_read() -> None:
    dataset = read({"x": PIXELS, "y": LABELS, "x_test": PIXELS[:2], "y_test": LABELS[:2]})
    assert dataset.splits is not None
    assert dataset.splits.tolist() == [TRAIN] * 6 + [TEST] * 2


@pytest.mark.parametrize(
    ("beside", "code", "received"),
    [
        ({"weights": [1] * 6}, "unused-key", "the key 'weights'"),
        ({"x_train": PIXELS, "y_train": LABELS}, "repeated-split", "'x' beside 'x_train'"),
        ({"x_test": PIXELS}, "unused-key", "the key 'x_test'"),
        ({"split": ["train"] * 5}, "length-mismatch", "6 images and 5 splits"),
        ({"split": ["train"] * 5 + ["elsewhere"]}, "unknown-split", "'elsewhere'"),
        ({"groups": "abcdef"}, "length-mismatch", "str"),
    ],
)
def test_unusable_keys_of_a_mapping_are_refused(beside: dict[str, object], code: str, received: str) -> None:
    with refused(code, DataError, received=received):
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
def test_a_tensor_that_records_gradients_is_refused_with_what_to_call(source: object) -> None:
    with refused("not-an-array", DataError, hint="call .detach().numpy()"):
        read(source)


def test_such_a_tensor_is_refused_as_a_single_image() -> None:
    with refused("not-an-array", ImageRefused, hint="call .detach().numpy()"):
        source_of(Tensor())


@pytest.mark.parametrize("form", [list, tuple])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_images_without_labels_are_refused(paths: list[str], form: type, count: int) -> None:
    for items, unit in (
        (paths, "string"),
        (list(map(Path, paths)), "path"),
        (PILLOW, "image"),
        (list(map(encoded, PILLOW)), "image"),
    ):
        with refused("no-labels", DataError) as caught:
            read(form(items[:count]))
        assert f"of {count} {unit}" in str(caught.value.received)
