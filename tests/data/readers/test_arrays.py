"""Arrays in memory, and the files that hold arrays: pickle, .npz, .npy."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from making import figures
from PIL import Image

from crossroads.data.dataset import TEST, TRAIN, VALIDATION
from crossroads.data.readers import read
from crossroads.errors import DataError, ImageRefused
from refusals import refused

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 8, 3), dtype=np.uint8)
LABELS = np.array([1, 5, 1, 2, 5, 10], np.uint8)


def labels_of(dataset) -> list[str]:  # type: ignore[no-untyped-def]
    return [dataset.row(row).label for row in range(len(dataset))]


def test_uint8_is_not_copied() -> None:
    dataset = read((PIXELS, LABELS))
    assert dataset.classes == ("1", "2", "5", "10")
    assert labels_of(dataset) == ["1", "5", "1", "2", "5", "10"]
    assert dataset.name(3) == "images[3]"
    image = dataset.read(3)
    assert isinstance(image, np.ndarray)
    assert np.shares_memory(image, PIXELS)
    assert dataset.groups is None
    assert dataset.splits is None
    assert read(dataset) is dataset


@pytest.mark.parametrize("shape", [(4, 9, 8), (4, 9, 8, 1), (4, 9, 8, 3), (4, 9, 8, 4)])
def test_shapes(shape: tuple[int, ...]) -> None:
    image = read((np.zeros(shape, np.uint8), [0, 1, 0, 1])).read(0)
    assert isinstance(image, np.ndarray)
    assert image.shape == shape[1:]


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.array([0, 0.5, 1]), [0, 128, 255]),
        (np.array([0, 0.25, 1], np.float32), [0, 64, 255]),
        (np.array([0, 1, 0.1], np.float16), [0, 255, 25]),
        (np.array([0, 128, 65535], np.uint16), [0, 0, 255]),
        (np.array([129, 257, 65406], np.uint16), [1, 1, 254]),
        (np.array([0, 7, 255], np.uint16), [0, 0, 1]),
        (np.array([0, 7, 65535], ">u2"), [0, 0, 255]),
        (np.array([0, 7, 255], np.int64), [0, 7, 255]),
        (np.array([False, True, True]), [0, 255, 255]),
    ],
)
def test_other_types_become_uint8(pixels: np.ndarray, expected: list[int]) -> None:
    image = read((pixels.reshape(1, 1, 3), ["a"])).read(0)
    assert isinstance(image, np.ndarray)
    assert image.dtype == np.uint8
    assert image.reshape(-1).tolist() == expected


def test_an_image_of_16_bits_is_read_the_same_beside_any_others() -> None:
    dark, light = np.full((4, 4), 200, np.uint16), np.full((4, 4), 60000, np.uint16)
    alone = np.asarray(read((dark[np.newaxis], ["a"])).read(0))
    for images in (np.stack([dark, light]), [dark, light], [dark, light[:2]], [light.astype(np.uint8)[:3], dark][::-1]):
        assert np.array_equal(np.asarray(read((images, ["a", "b"])).read(0)), alone)


@pytest.mark.parametrize(
    ("images", "figure"),
    [
        ((PIXELS > 127).astype(np.uint8), "0 and 1 in a range of 0..255"),
        ((PIXELS > 127).astype(np.int64), "0 and 1 in a range of 0..255"),
        (PIXELS // 16, "15 of 255"),
        (PIXELS.astype(np.uint16) * 16, "65,535"),
        (PIXELS.astype(np.float32) / 255 / 255, "of 1"),
        ([*(PIXELS > 127).astype(np.uint8)], "0 and 1 in a range of 0..255"),
        ([Image.fromarray(image[..., 0].astype(np.uint16) * 16) for image in PIXELS], "65,535"),
        ([*(PIXELS // 16), PIXELS[0]], "6 of 7"),
    ],
)
def test_dark_values_are_noted(images: object, figure: str) -> None:
    dataset = read((images, [0] * len(images)))  # type: ignore[arg-type]
    assert len(figures(dataset, "value-range")) == len(dataset.notes) == 1
    assert figure in dataset.notes[0]


@pytest.mark.parametrize(
    "images", [PIXELS, PIXELS > 127, PIXELS / 255, PIXELS.astype(np.uint16) * 257, (PIXELS > 127) * 255, PIXELS * 0]
)
def test_ordinary_values_give_no_note(images: np.ndarray) -> None:
    assert read((images, LABELS)).notes == ()


def test_dark_values_in_a_file_are_noted_with_the_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=PIXELS // 200, y_train=LABELS, x_test=PIXELS, y_test=LABELS)
    assert [note["array"] for note in figures(read(tmp_path / "a.npz"), "value-range")] == ["x_train"]


def test_one_array_many_times_is_never_stacked() -> None:
    one = np.zeros((1000, 1000), np.uint8)
    dataset = read(([one] * 200_000, np.zeros(200_000, np.int8)))  # a stack would take 200 GB
    assert np.shares_memory(np.asarray(dataset.read(199_999)), one)


@pytest.mark.parametrize(
    ("pixels", "code", "hint"),
    [
        ([np.full((2, 2), 16.0)] * 2, "out-of-range", "divide by 16"),
        ([np.zeros((3, 32, 32), np.uint8)] * 2, "wrong-shape", "transpose(0, 2, 3, 1)"),
        ([np.full((2, 2), 256)] * 2, "out-of-range", "uint16"),
        (np.full((2, 2, 2), 16.0), "out-of-range", "divide by 16"),
        (np.full((2, 2, 2), 254.0), "out-of-range", "divide by 255"),
        (np.full((2, 2, 2), -0.5), "out-of-range", "normali"),
        (np.array([[[0, np.nan]], [[0, 1]]]), "out-of-range", "NaN"),
        (np.full((2, 2, 2), np.inf), "out-of-range", "NaN"),
        (np.full((2, 2, 2), 256), "out-of-range", ""),
        (np.full((2, 2, 2), -1, np.int8), "out-of-range", ""),
        (np.zeros((2, 3, 32, 32), np.uint8), "wrong-shape", "transpose(0, 2, 3, 1)"),
        (np.zeros((2, 64), np.uint8), "wrong-shape", "reshape(-1, 8, 8)"),
        (np.zeros((2, 0, 5), np.uint8), "no-pixels", ""),
        (np.zeros((20, 20, 3), np.uint8), "single-image", ""),
        (np.zeros((2, 2, 2), complex), "not-an-array", ""),
        (np.array(["a", "b"]), "missing-files", ""),
        ("ab", "not-images", ""),
    ],
)
def test_unusable_images_are_refused(pixels: object, code: str, hint: str) -> None:
    with refused(code, DataError) as caught:
        read((pixels, ["a", "b"]))
    assert hint in (caught.value.hint or "")


def test_lengths_must_agree() -> None:
    with refused("length-mismatch", DataError, received="6 images and 5 labels"):
        read((PIXELS, LABELS[:5]))


def test_lists_and_mappings() -> None:
    assert labels_of(read([PIXELS.tolist(), LABELS.tolist()])) == labels_of(read((PIXELS, LABELS)))
    assert labels_of(read({"features": PIXELS, "labels": LABELS})) == labels_of(read((PIXELS, LABELS)))


def test_images_of_many_sizes() -> None:
    dataset = read(([PIXELS[0], PIXELS[1, :4], np.array(["no"])], [0, 1, 1]))
    image = dataset.read(1)
    assert isinstance(image, np.ndarray)
    assert image.shape == (4, 8, 3)
    with refused("wrong-shape", ImageRefused, received="shape (1,)"):
        dataset.read(2)


def test_no_images_are_refused() -> None:
    with refused("no-images", DataError):
        read((PIXELS[:0], []))


# Pickle


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("keys", [("features", "labels"), ("data", "targets"), (b"images", b"y"), ("X", "Y")])
def test_a_pickle_is_read(protocol: int, keys: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / "train.p"
    path.write_bytes(pickle.dumps({keys[0]: PIXELS, keys[1]: LABELS, "sizes": [(1, 2)]}, protocol))
    dataset = read(path)
    assert np.array_equal(np.stack([np.asarray(dataset.read(row)) for row in range(6)]), PIXELS)
    assert labels_of(dataset) == ["1", "5", "1", "2", "5", "10"]
    assert dataset.splits is None, "one file is one set, whatever its name"


def test_a_pickle_is_known_by_content(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(pickle.dumps({"features": PIXELS, "labels": LABELS}))
    assert len(read(tmp_path / "blob")) == 6


@pytest.mark.parametrize(
    "images", [["a.png", "b.png"], np.array(["a.png", "b.png"]), np.array(["a.png", "b.png"], object), [b"x", b"y"]]
)
def test_text_in_a_pickle_is_never_a_path(images: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        Image.fromarray(PIXELS[0]).save(f"{name}.png")
    (tmp_path / "data.p").write_bytes(pickle.dumps({"features": images, "labels": [0, 1]}))
    with pytest.raises(DataError):
        read("data.p")


def test_text_in_an_npz_is_never_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PIXELS[0]).save("a.png")
    np.savez("data.npz", x=np.array(["a.png", "a.png"]), y=[0, 1])
    with pytest.raises(DataError):
        read("data.npz")


def test_a_hostile_pickle_is_refused_with_what_it_refers_to(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, (f"touch {tmp_path / 'executed'}",)

    (tmp_path / "evil.p").write_bytes(pickle.dumps({"features": Evil(), "labels": LABELS}))
    with refused("unsafe-pickle", DataError) as caught:
        read(tmp_path / "evil.p")
    assert caught.value.rule.startswith("evil.p: ")
    assert ".system" in str(caught.value.received)
    assert not (tmp_path / "executed").exists()


def test_unusable_pickles_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.p"
    path.write_bytes(pickle.dumps({"features": PIXELS}))
    with refused("no-pair", DataError, received="arrays named 'features'"):
        read(path)
    path.write_bytes(pickle.dumps([1]))
    with refused("not-a-dict", DataError, received="a list"):
        read(path)
    path.write_bytes(pickle.dumps({"features": PIXELS, "labels": LABELS})[:-200])
    with refused("pickle-damaged", DataError):
        read(path)


def nest(depth: int) -> list[object]:
    """Returns a list that is a few bytes in a pickle and has 8**depth elements when unfolded."""
    inner: list[object] = [0] * 8
    for _ in range(depth - 1):
        inner = [inner] * 8
    return inner


@pytest.mark.parametrize(
    ("features", "labels", "code"),
    [
        (nest(14), LABELS, "nested-images"),
        ([PIXELS[0], nest(14)], LABELS, "nested-images"),
        (PIXELS, nest(14), "nested-labels"),
        (PIXELS, [PIXELS] * 6, "nested-labels"),
        (PIXELS, [{}] * 6, "nested-labels"),
    ],
)
def test_a_small_pickle_of_endless_lists_is_refused_at_once(features: object, labels: object, code: str, tmp_path: Path) -> None:
    (tmp_path / "a.p").write_bytes(pickle.dumps({"features": features, "labels": labels}))
    with refused(code, DataError):
        read(tmp_path / "a.p")


def test_an_integer_label_beyond_64_bits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.p").write_bytes(pickle.dumps({"features": PIXELS, "labels": [1, 2, 1, 2, 1, 2**70]}))
    with pytest.raises(DataError):
        read(tmp_path / "a.p")


def test_lists_in_a_pickle(tmp_path: Path) -> None:
    (tmp_path / "a.p").write_bytes(pickle.dumps({"features": [PIXELS[0], PIXELS[1, :4]], "labels": ["b" * 9_000_000, "a"]}))
    dataset = read(tmp_path / "a.p")
    assert dataset.labels.tolist() == [1, 0]
    assert np.asarray(dataset.read(1)).shape == (4, 8, 3)


def test_a_folder_of_pickles_has_splits(tmp_path: Path) -> None:
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.p").write_bytes(pickle.dumps({"features": PIXELS, "labels": LABELS}))
    dataset = read(tmp_path)
    assert dataset.splits is not None
    assert sorted(dataset.splits.tolist()) == [TRAIN] * 6 + [VALIDATION] * 6 + [TEST] * 6
    assert dataset.name(0) == "test.p:features[0]"
    assert np.array_equal(np.asarray(dataset.read(17)), PIXELS[5])
    (tmp_path / "more.p").write_bytes(b"")
    with refused("several-files", DataError):
        read(tmp_path)


def test_the_pickles_of_the_notes(shared_data: Path) -> None:
    dataset = read(shared_data / "small_traffic_set" / "small_test_traffic.p")
    assert len(dataset) == 20
    assert dataset.classes == ("1", "2", "3", "4", "5")
    image = dataset.read(0)
    assert isinstance(image, np.ndarray)
    assert image.shape == (32, 32, 3)


# .npz and .npy


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("keys", [("features", "labels"), ("x", "y"), ("images", "labels")])
def test_an_npz_is_read(save, keys: tuple[str, str], tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    save(tmp_path / "a.npz", **{keys[0]: PIXELS, keys[1]: LABELS, "other": np.array([None])})
    dataset = read(tmp_path / "a.npz")
    assert labels_of(dataset) == ["1", "5", "1", "2", "5", "10"]
    assert np.array_equal(np.asarray(dataset.read(5)), PIXELS[5])


def test_an_npz_with_splits(tmp_path: Path) -> None:
    np.savez(tmp_path / "mnist.npz", x_train=PIXELS, y_train=LABELS, x_test=PIXELS[:2], y_test=np.array([3, 1]))
    dataset = read(tmp_path / "mnist.npz")
    assert dataset.splits is not None
    assert dataset.splits.tolist() == [TRAIN] * 6 + [TEST] * 2
    assert dataset.classes == ("1", "2", "3", "5", "10")
    assert dataset.name(6) == "x_test[0]"
    assert np.array_equal(np.asarray(dataset.read(7)), PIXELS[1])


@pytest.mark.parametrize(
    ("images", "labels"), [("X", "y"), ("images", "labels"), ("features", "labels"), ("X_train", "y_train"), ("Images", "Labels")]
)
def test_an_npy_pair_is_read(images: str, labels: str, tmp_path: Path) -> None:
    np.save(tmp_path / f"{images}.npy", np.asfortranarray(PIXELS))
    np.save(tmp_path / f"{labels}.npy", LABELS.astype(">i4"))
    for source in (tmp_path, tmp_path / f"{images}.npy"):
        dataset = read(source)
        assert labels_of(dataset) == ["1", "5", "1", "2", "5", "10"]
        assert np.array_equal(np.asarray(dataset.read(4)), PIXELS[4])


def test_one_npy_without_its_partner_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", PIXELS)
    with refused("no-pair", DataError):
        read(tmp_path / "X.npy")


def test_object_arrays_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", features=PIXELS, labels=np.array(["a", None] * 3, dtype=object))
    with pytest.raises(DataError, match="array of Python objects"):
        read(tmp_path / "a.npz")


def test_truncated_numpy_files(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, features=PIXELS, labels=LABELS)
    path.write_bytes(path.read_bytes()[:-300])
    with refused("file-truncated", DataError):
        read(path)
    np.save(tmp_path / "X.npy", PIXELS)
    np.save(tmp_path / "y.npy", LABELS)
    (tmp_path / "X.npy").write_bytes((tmp_path / "X.npy").read_bytes()[:-100])
    with pytest.raises(DataError, match=r"X\.npy is truncated"):
        read(tmp_path / "X.npy")
    for header in (b"\xff\xff{", b"\x08\x00{'a': (3"):  # NumPy raises several kinds of errors
        (tmp_path / "X.npy").write_bytes(b"\x93NUMPY\x01\x00" + header)
        with pytest.raises(DataError, match=r"X\.npy is not a readable"):
            read(tmp_path / "X.npy")


def test_a_header_that_claims_too_much_allocates_nothing(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 50, 32, 32)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("features.npy", header.getvalue())
        archive.writestr("labels.npy", header.getvalue())
    with pytest.raises(DataError, match="truncated"):
        read(tmp_path / "a.npz")


@pytest.mark.parametrize("shape", [(10**12, 0), (0, 10**12), (10**12, 0, 3)])
def test_an_empty_array_claims_no_endless_rows(shape: tuple[int, ...], tmp_path: Path) -> None:
    np.save(tmp_path / "X.npy", PIXELS)
    with (tmp_path / "y.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with pytest.raises(DataError, match=r"y\.npy is not a readable \.npy array; received shape"):
        read(tmp_path / "X.npy")
