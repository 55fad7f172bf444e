"""A picture of any kind has the same pixels in training and prediction, and an odd range of values is noted."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from crossroads.data.images import ValueRange, decode
from crossroads.data.loading import stream, stream_pictures
from crossroads.data.pictures import range_note, source_of, value_range
from crossroads.data.readers import read
from crossroads.errors import ImageRefused
from refusals import refused

COLOUR = Image.fromarray(np.random.default_rng(4).integers(0, 256, (9, 13, 3), np.uint8))
DEEP = np.random.default_rng(5).integers(0, 65536, (9, 13)).astype(np.uint16)


def of_mode(mode: str) -> Image.Image:
    if mode in ("La", "RGBa"):  # premultiplied
        return COLOUR.convert(mode.upper()).convert(mode)
    if mode == "PA":
        return COLOUR.convert("P").convert("PA")
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return ImageCms.applyTransform(COLOUR, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    if mode.startswith("I;16"):
        return Image.frombytes(mode, COLOUR.size, DEEP.astype(">u2" if mode == "I;16B" else "<u2").tobytes())
    if mode == "I":
        return Image.fromarray(DEEP.astype(np.int32))
    image = COLOUR.convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray((DEEP // 257).astype(np.uint8)))
    return image


MODES = (
    "1", "L", "P", "LA", "La", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "I;16B"
)  # fmt: skip


def turned(kind: str) -> Image.Image:
    exif = Image.Exif()
    exif[0x0112] = 6
    return opened(COLOUR, kind, exif=exif)


def opened(image: Image.Image, kind: str, **options: object) -> Image.Image:
    """The image as a file that Pillow has opened and not yet read."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(file)


PILLOW = {
    **{mode: lambda mode=mode: of_mode(mode) for mode in MODES},
    "palette with a transparent colour": lambda: opened(COLOUR.convert("P"), "PNG", transparency=3),
    "turned JPEG": lambda: turned("JPEG"),
    "turned PNG": lambda: turned("PNG"),
    "turned TIFF": lambda: turned("TIFF"),
    "animated GIF": lambda: opened(COLOUR, "GIF", save_all=True, append_images=[COLOUR.rotate(180)]),
    "CMYK JPEG": lambda: opened(COLOUR.convert("CMYK"), "JPEG"),
}


@pytest.mark.parametrize("kind", PILLOW)
def test_training_and_prediction_see_the_same_pixels_of_a_pillow_image(kind: str) -> None:
    trained = [one.image for one in stream(read(([PILLOW[kind](), COLOUR], ["a", "b"])), 9)]
    predicted = [one.image for one in stream_pictures([PILLOW[kind](), COLOUR], 9)]
    np.testing.assert_array_equal(np.stack(trained), np.stack(predicted))


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in ("La", "RGBa", "HSV")])
def test_a_pillow_image_is_what_its_file_is(mode: str) -> None:
    image, file = of_mode(mode), io.BytesIO()
    image.save(file, "TIFF")
    np.testing.assert_array_equal(decode(source_of(image)), decode(file.getvalue()))


@pytest.mark.parametrize("mode", ["P", "CMYK", "YCbCr", "LAB", "HSV", "RGBX", "RGBa"])
def test_a_colour_mode_keeps_the_colours(mode: str) -> None:
    smooth = Image.linear_gradient("L").resize((16, 16))
    image = Image.merge("RGB", (smooth, smooth.rotate(90), smooth.rotate(180)))
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        changed = ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "RGB", "LAB"))
    else:
        changed = image.convert("RGBA").convert(mode) if mode == "RGBa" else image.convert(mode)
    assert np.abs(decode(source_of(changed)).astype(int) - np.asarray(image)).mean() < 16


def test_a_rotated_image_becomes_upright() -> None:
    assert decode(source_of(turned("PNG"))).shape == (13, 9, 3)
    np.testing.assert_array_equal(decode(source_of(turned("PNG"))), np.rot90(np.asarray(COLOUR), -1))


def test_the_current_frame_of_an_animation_is_used() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((250, 0, 0), (0, 0, 250))]
    image = opened(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert decode(source_of(image))[0, 0].tolist() == [250, 0, 0]
    image.seek(1)
    assert decode(source_of(image))[0, 0].tolist() == [0, 0, 250]


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_an_array_is_the_same_for_training_and_prediction(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["u1", "<u2", ">u2", "?", "f2", "f4", "f8", "i1", "i4", "i8"]))
    shape = data.draw(st.sampled_from([(6, 7), (6, 7, 1), (6, 7, 3), (6, 7, 4)]))
    top = {"?": 2, "i1": 128, "<u2": 65536, ">u2": 65536}.get(kind, 256)
    values = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, top, shape)
    array = (values / 255 if kind.startswith("f") else values).astype(kind)
    trained = read((array[np.newaxis], ["a"])).read(0)
    assert isinstance(trained, np.ndarray)
    np.testing.assert_array_equal(decode(trained), decode(source_of(array)))


def test_a_path_its_bytes_and_its_pixels_give_the_same_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    COLOUR.save(path)
    raw = path.read_bytes()
    for picture in (path, str(path), raw, bytearray(raw), memoryview(raw), np.asarray(COLOUR), COLOUR, np.asarray(COLOUR).tolist()):
        np.testing.assert_array_equal(decode(source_of(picture)), np.asarray(COLOUR))


class Tensor:
    """An object that NumPy can convert, such as a tensor of PyTorch or TensorFlow."""

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return np.asarray(COLOUR) / 255


def test_anything_that_numpy_converts_is_an_array() -> None:
    np.testing.assert_array_equal(decode(source_of(Tensor())), np.asarray(COLOUR))


def closed(path: Path) -> Image.Image:
    COLOUR.save(path)
    with Image.open(path) as image:
        return image


def cut_short() -> Image.Image:
    file = io.BytesIO()
    COLOUR.resize((200, 200)).save(file, "PNG")
    return Image.open(io.BytesIO(file.getvalue()[: len(file.getvalue()) // 2]))


def test_other_objects_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    pillow = [closed(tmp_path / "a.png"), cut_short(), COLOUR.convert("F"), Image.new("RGB", (0, 3))]
    pillow.append(Image.fromarray(np.full((2, 2), 70_000, np.int32)))
    values = [np.full((3, 3), 300), np.full((3, 3), 1.5), np.full((3, 3), np.nan), np.full((3, 3), -1), np.zeros((3, 3), complex)]
    shapes = [np.zeros(3), np.zeros((2, 2, 2, 3)), [[1, 2], [3]], ["text"]]
    wrong = [*pillow, *values, *shapes, tmp_path / "folder", tmp_path / "gone.png", "a\0b", 7, None, object()]
    for picture in wrong:
        with pytest.raises(ImageRefused):
            decode(source_of(picture))
    with refused("wrong-shape", ImageRefused) as caught:
        decode(source_of(np.zeros((3, 40, 30), np.uint8)))
    assert "transpose(1, 2, 0)" in str(caught.value.hint)


def test_a_refused_picture_in_a_list_is_one_refusal(tmp_path: Path) -> None:
    images = [COLOUR, closed(tmp_path / "a.png"), np.asarray(COLOUR), b"junk", COLOUR.convert("F")]
    found = list(stream(read((images, list("abcde"))), 8))
    assert [isinstance(one.image, ImageRefused) for one in found] == [False, True, False, True, True]


def test_one_lazily_opened_image_many_times_is_read_once_at_a_time(tmp_path: Path) -> None:
    COLOUR.resize((300, 300)).save(tmp_path / "a.jpg")
    image = Image.open(tmp_path / "a.jpg")
    found = [one.image for one in stream_pictures([image] * 64, 16)]
    assert all(isinstance(one, np.ndarray) and np.array_equal(one, found[0]) for one in found)


# Ranges of values


@pytest.mark.parametrize(
    ("picture", "extent"),
    [
        (np.array([[3, 200]], np.uint8), (3, 200, 255)),
        (np.array([[3, 4095]], np.uint16), (3, 4095, 65535)),
        (np.array([[3, 4095]], ">u2"), (3, 4095, 65535)),
        (np.array([[0, 1]]), (0, 1, 255)),
        (np.array([[0, 0.25]]), (0, 0.25, 1)),
        (np.array([[False, True]]), (0, 1, 1)),
        (Image.fromarray(np.array([[7, 900]], np.uint16)), (7, 900, 65535)),
        (Image.fromarray(np.array([[7, 90]], np.uint8)), (7, 90, 255)),
        ("a.png", None),
        (b"raw", None),
        (None, None),
        (np.array(["text"]), None),
    ],
)
def test_the_value_range_of_a_picture_is_in_its_own_units(picture: object, extent: tuple[float, ...] | None) -> None:
    assert value_range(picture) == (None if extent is None else ValueRange(*extent))


@pytest.mark.parametrize(
    ("extent", "fact"),
    [
        ((0, 4095, 65535), "such as 16 "),
        ((90, 1023, 65535), "such as 64 "),
        ((0, 16383, 65535), "such as 4 "),
        ((0, 1, 255), "multiply them by 255"),
        ((0, 15, 255), "such as 16 "),
        ((0, 0.0039, 1), "divide by 0.0039"),
    ],
)
def test_a_dark_range_is_noted_with_its_figures_and_a_factor(extent: tuple[float, ...], fact: str) -> None:
    note = range_note([ValueRange(*extent)] * 5)
    assert note is not None
    assert note.code == "value-range"
    assert note.figures == {"images": 5, "sampled": 5, "high": extent[1], "full": extent[2]}
    assert fact in note


def test_dark_16_bit_images_among_others_are_noted() -> None:
    note = range_note([ValueRange(0, 200, 255)] * 20 + [ValueRange(0, 4095, 65535)] * 3)
    assert note is not None
    assert (note.figures["images"], note.figures["sampled"]) == (3, 23)


@pytest.mark.parametrize(
    "extents",
    [
        [],
        [ValueRange(0, 255, 255)] * 3,
        [ValueRange(0, 30000, 65535)] * 3,
        [ValueRange(0, 0, 255)] * 3,  # all black: no factor helps
        [ValueRange(0, 1, 1)] * 3,
        [ValueRange(0, 20, 255)] * 3 + [ValueRange(0, 200, 255)] * 5,  # some night scenes
    ],
)
def test_an_ordinary_range_gives_no_note(extents: list[ValueRange]) -> None:
    assert range_note(extents) is None
