"""One source becomes RGB pixels, or one refusal with its reason."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from crossroads.data import images
from crossroads.data.images import FILTERS, Resize, decode, decode_with_range, dimensions, dimensions_from, load, resize
from crossroads.errors import DataError, ImageRefused
from refusals import refused

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photo(width: int = 40, height: int = 30) -> Image.Image:
    """A smooth picture without symmetry, which survives JPEG."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return Image.fromarray((np.stack([x, y, x * y], -1) * 255).astype(np.uint8))


def noise(width: int = 64, height: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def png(width: int, height: int, depth: int, colour: int, scanlines: bytes, chunks: bytes = b"") -> bytes:
    """A PNG written by hand: Pillow can write neither 16-bit colour nor a false header."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunks + chunk(b"IDAT", zlib.compress(scanlines)) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def tiff(width: int, height: int, values: np.ndarray, *, photometric: int = 1, sample_format: int = 1) -> bytes:
    """An uncompressed grey or RGB TIFF of any sample type."""
    samples = 3 if values.ndim == 3 else 1
    bits = values.dtype.itemsize * 8
    count = 10
    after = 8 + 2 + 12 * count + 4
    tags = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, samples, after if samples > 2 else bits), (259, 3, 1, 1),
        (262, 3, 1, photometric), (273, 4, 1, after + 6), (277, 3, 1, samples), (278, 3, 1, height), (279, 4, 1, values.nbytes),
        (339, 3, 1, sample_format),
    ]  # fmt: skip
    entries = b"".join(
        struct.pack("<HHI", *tag[:3])
        + (struct.pack("<HH", tag[3], 0) if tag[1] == 3 and tag[2] == 1 else struct.pack("<I", tag[3]))
        for tag in tags
    )
    return b"II*\0" + struct.pack("<IH", 8, count) + entries + b"\0" * 4 + struct.pack("<3H", bits, bits, bits) + values.tobytes()


LOSSLESS = {"PPM": {}, "PNG": {}, "BMP": {}, "TIFF": {}, "WEBP": {"lossless": True}}
EVERY = {**LOSSLESS, "JPEG": {"quality": 95}, "GIF": {}, "AVIF": {"quality": 90}}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_formats_give_the_exact_pixels(kind: str) -> None:
    image = noise(7, 5)
    np.testing.assert_array_equal(decode(encoded(image, kind, **LOSSLESS[kind])), np.asarray(image))


@pytest.mark.parametrize("kind", EVERY)
def test_every_format_gives_the_picture(kind: str) -> None:
    image = photo()
    got = decode(encoded(image, kind, **EVERY[kind]))
    assert got.shape == (30, 40, 3)
    assert got.dtype == np.uint8
    assert np.abs(got.astype(int) - np.asarray(image)).mean() < 12  # GIF has 256 colours, JPEG loses a little


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_is_used(kind: str) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    got = decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    np.testing.assert_array_equal(got, np.full((6, 8, 3), RED, np.uint8))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = 255  # a white top left corner
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.swapaxes(0, 1),
        6: np.rot90(upright), 7: np.rot90(upright, 2).swapaxes(0, 1), 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100}, "AVIF": {"quality": 100}, "WEBP": {"lossless": True}}.get(kind, {})
    raw = encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **options)
    assert dimensions(raw) == (16, 32)
    assert np.abs(decode(raw).astype(int) - upright).max() < 8


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "PPM", "BMP", "GIF", "TIFF"])
def test_the_header_of_a_large_file_gives_its_dimensions(kind: str) -> None:
    raw = encoded(noise(300, 200), kind)
    if kind == "TIFF":
        raw = tiff(300, 200, np.zeros((200, 300, 3), np.uint8), photometric=2)  # Pillow writes the directory first, too
    assert len(raw) > 8192
    assert dimensions_from(raw[:8192], len(raw)) == (200, 300)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", EVERY)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_beginning_of_a_file_gives_its_dimensions_or_nothing(kind: str, data: st.DataObject) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "x" * 500  # the orientation is read only once all of this is
    options = {} if kind in ("BMP", "GIF", "PPM") else {"exif": exif}
    raw = encoded(noise(40, 30), kind, **options)
    assert dimensions_from(raw[: data.draw(st.integers(0, len(raw)))], len(raw)) in (None, dimensions(raw))


@pytest.mark.parametrize("raw", [b"", b"text", b"\xff\xd8\xff", png(30_000, 30_000, 8, 2, b"")])
def test_a_beginning_without_dimensions_refuses_nothing(raw: bytes) -> None:
    assert dimensions_from(raw, 10**6) is None


def test_an_unreadable_exif_block_is_ignored() -> None:
    raw = encoded(photo(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff broken")
    assert decode(raw).shape == (30, 40, 3)
    assert dimensions(raw) == (30, 40)


@pytest.mark.parametrize("mode", ["L", "1", "LA", "P", "RGBA", "CMYK", "RGBX"])
def test_every_mode_of_a_red_image_becomes_rgb(mode: str) -> None:
    image = Image.new("RGB", (4, 4), WHITE if mode in ("1", "L", "LA") else RED).convert(mode)
    kind = {"CMYK": "TIFF", "RGBX": "TIFF"}.get(mode, "PNG")
    got = decode(encoded(image, kind))
    np.testing.assert_array_equal(got, np.full((4, 4, 3), WHITE if mode in ("1", "L", "LA") else RED, np.uint8))


def test_a_cmyk_jpeg_is_not_inverted() -> None:
    got = decode(encoded(Image.new("RGB", (8, 8), (200, 40, 40)).convert("CMYK"), "JPEG", quality=100))
    assert np.abs(got.astype(int) - (200, 40, 40)).max() < 6


@pytest.mark.parametrize(("alpha", "expected"), [(0, WHITE), (255, RED), (128, (255, 127, 127))])
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_laid_over_white(kind: str, alpha: int, expected: tuple[int, int, int]) -> None:
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    got = decode(encoded(Image.new("RGBA", (3, 3), (*RED, alpha)), kind, **options))
    np.testing.assert_array_equal(got, np.full((3, 3, 3), expected, np.uint8))


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_is_laid_over_white(mode: str) -> None:
    image = Image.new("RGB", (4, 2), (0, 0, 0)).convert(mode)
    transparent = (0, 0, 0) if mode == "RGB" else image.getpixel((0, 0))
    np.testing.assert_array_equal(decode(encoded(image, "PNG", transparency=transparent)), np.full((2, 4, 3), 255, np.uint8))
    np.testing.assert_array_equal(decode(encoded(image, "PNG")), np.zeros((2, 4, 3), np.uint8))


GREYS = np.array([[0, 1, 128, 129, 257, 4660, 33023, 65534, 65535]], np.uint16)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(png(9, 1, 16, 0, b"\0" + GREYS.astype(">u2").tobytes()), id="png"),
        pytest.param(b"P5\n9 1\n65535\n" + GREYS.astype(">u2").tobytes(), id="pgm"),
        pytest.param(tiff(9, 1, GREYS), id="tiff"),
        pytest.param(tiff(9, 1, 65535 - GREYS, photometric=0), id="tiff, white is zero"),
        pytest.param(tiff(9, 1, GREYS.astype(np.int32), sample_format=2), id="tiff of 32 bits"),
    ],
)
def test_16_bit_grey_becomes_8_bits_by_rounding(raw: bytes) -> None:
    expected = np.repeat(np.round(GREYS / 257).astype(np.uint8)[..., None], 3, 2)
    np.testing.assert_array_equal(decode(raw), expected)


def test_a_transparent_16_bit_grey_is_white() -> None:
    raw = png(9, 1, 16, 0, b"\0" + GREYS.astype(">u2").tobytes(), chunk(b"tRNS", struct.pack(">H", 4660)))
    assert decode(raw)[0, :, 0].tolist() == [0, 0, 0, 1, 1, 255, 128, 255, 255]


@pytest.mark.parametrize("kind", ["png", "ppm", "tiff"])
def test_16_bit_colour_becomes_8_bits_within_one(kind: str) -> None:
    values = np.random.default_rng(1).integers(0, 65536, (4, 5, 3)).astype(np.uint16)
    big = values.astype(">u2")
    raw = {
        "png": png(5, 4, 16, 2, b"".join(b"\0" + line.tobytes() for line in big)),
        "ppm": b"P6\n5 4\n65535\n" + big.tobytes(),
        "tiff": tiff(5, 4, values, photometric=2),
    }[kind]
    assert np.abs(decode(raw) - values / 257).max() <= 1


def test_values_that_do_not_fit_are_refused() -> None:
    with refused("unsupported-samples", ImageRefused, received="floating-point pixels"):
        decode(tiff(2, 1, np.array([[0.5, 1]], np.float32), sample_format=3))
    with refused("unsupported-samples", ImageRefused, received="5..70000"):
        decode(tiff(2, 1, np.array([[5, 70000]], np.int32), sample_format=2))


@pytest.mark.parametrize(
    ("raw", "codes"),
    [
        (b"", {"image-empty"}),
        (b"hello, this is text", {"not-an-image"}),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", {"not-an-image"}),
        (b"%PDF-1.7\n", {"not-an-image"}),
        (b"\x89PNG\r\n\x1a\n", {"image-truncated", "image-corrupt"}),
        (b"P6\n0 4\n255\n", {"image-empty", "image-corrupt"}),
        (png(0, 5, 8, 2, b""), {"image-empty", "image-corrupt"}),
        (png(50_000, 50_000, 8, 2, b"\0"), {"image-too-large"}),
        (b"P6\n50000 50000\n255\n", {"image-too-large"}),
        (b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0;", {"image-too-large", "image-truncated", "image-corrupt"}),
    ],
)
def test_a_file_that_is_not_an_image_is_refused(raw: bytes, codes: set[str]) -> None:
    for use in (decode, dimensions, lambda source: load(source, 8)):
        with pytest.raises(ImageRefused) as caught:
            use(raw)
        assert caught.value.code in codes


def test_the_pixel_limit_is_checked_here_and_pillow_never_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        raw = png(9_480, 9_480, 1, 0, (b"\0" + b"\xff" * 1185) * 9_480)  # 89.9 megapixels: more than Pillow's own limit
        assert dimensions(raw) == (9_480, 9_480)
        with refused("image-too-large", ImageRefused):
            decode(png(20_000, 20_000, 1, 0, b""))
        monkeypatch.setattr(images, "MAX_PIXELS", 1_000)
        with refused("image-too-large", ImageRefused):
            decode(raw)


@pytest.mark.parametrize("tolerant", [False, True])
@pytest.mark.parametrize("kind", EVERY)
def test_a_truncated_file_is_refused_even_if_pillow_is_set_to_accept_it(
    kind: str, tolerant: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    raw = encoded(noise(), kind, **EVERY[kind])
    assert decode(raw).shape == (64, 64, 3)
    for fraction in (0.2, 0.5, 0.9):
        with pytest.raises(ImageRefused):
            decode(raw[: int(len(raw) * fraction)])
    with pytest.raises(ImageRefused) as caught:
        decode(raw[: int(len(raw) * 0.6)])
    assert caught.value.code == "image-truncated"


@pytest.mark.parametrize("kind", EVERY)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_gives_pixels_or_a_refusal_and_nothing_else(kind: str, data: st.DataObject) -> None:
    raw = bytearray(encoded(photo(), kind, **EVERY[kind]))
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "MAX_PIXELS", 10_000)
        warnings.simplefilter("ignore")  # Pillow remarks on damaged metadata
        for use in (decode, dimensions):
            try:
                got = use(bytes(raw))
            except ImageRefused:
                continue
            assert len(got) > 0


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (5, 4, 3), (5, 4, 4)])
def test_arrays_become_rgb(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    if shape[-1] == 4 and len(shape) == 3:
        array[..., 3] = 255
    got = decode(array)
    assert got.shape == (5, 4, 3)
    expected = np.repeat(array.reshape(5, 4, 1), 3, 2) if array.size == 20 else array[..., :3]
    np.testing.assert_array_equal(got, expected)
    assert dimensions(array) == (5, 4)


def test_alpha_of_an_array_is_laid_over_white() -> None:
    np.testing.assert_array_equal(decode(np.zeros((2, 2, 4), np.uint8)), np.full((2, 2, 3), 255, np.uint8))


@pytest.mark.parametrize(
    ("array", "code", "hint"),
    [
        (np.full((4, 4, 3), 0.5, np.float32), "not-uint8", "(array * 255).round().astype('uint8')"),
        (np.full((4, 4, 3), 120.0, np.float32), "not-uint8", "array.astype('uint8')"),
        (np.zeros((4, 4, 2), np.uint8), "wrong-shape", ""),
        (np.zeros((4,), np.uint8), "wrong-shape", ""),
        (np.zeros((0, 4, 3), np.uint8), "image-empty", ""),
        (np.broadcast_to(np.uint8(0), (50_000, 50_000)), "image-too-large", ""),
    ],
)
def test_an_array_that_is_not_an_image_is_refused(array: np.ndarray, code: str, hint: str) -> None:
    for use in (decode, dimensions):
        with refused(code, ImageRefused) as caught:
            use(array)
        assert hint in str(caught.value.hint)


def test_resize_squashes_to_the_square_and_leaves_the_right_size_alone() -> None:
    image = np.asarray(photo(64, 32))
    assert resize(image, 32).shape == (32, 32, 3)
    square = np.asarray(photo(16, 16))
    assert resize(square, 16) is square
    np.testing.assert_array_equal(resize(np.full((7, 9, 3), 77, np.uint8), 4), np.full((4, 4, 3), 77, np.uint8))


def test_shrinking_averages_over_what_it_covers() -> None:
    checks = np.indices((256, 256)).sum(0) % 2 * 255
    got = resize(np.repeat(checks.astype(np.uint8)[..., None], 3, 2), 16)
    assert np.abs(got.astype(int) - 127).max() <= 2  # a filter without antialiasing gives black or white


def test_load_decodes_and_resizes_files_and_arrays_alike() -> None:
    image = noise(50, 40)
    from_file, from_array = load(encoded(image, "PNG"), 24), load(np.asarray(image), 24)
    np.testing.assert_array_equal(from_file, from_array)
    np.testing.assert_array_equal(from_file, resize(decode(encoded(image, "PNG")), 24))


@pytest.mark.parametrize(
    ("size", "decoded"), [(32, (64, 96)), (64, (64, 96)), (65, (128, 192)), (257, (512, 768)), (512, (512, 768))]
)
def test_a_large_jpeg_is_decoded_at_the_smallest_scale_that_suffices(size: int, decoded: tuple[int, int]) -> None:
    raw = encoded(photo(768, 512), "JPEG", quality=95)
    assert decode_with_range(raw, draft=size)[0].shape[:2] == decoded
    whole = resize(decode(raw), size).astype(int)
    assert np.abs(load(raw, size) - whole).mean() < 2


def test_an_unknown_way_to_resize_is_refused() -> None:
    assert Resize(32) == Resize(32, "squash")
    with refused("unknown-resize-mode", DataError, field="resize"):
        Resize(32, "stretch")
    with refused("out-of-range", DataError, field="image_size"):
        Resize(0)
    with refused("unknown-filter", DataError, field="resample"):
        Resize(32, filter="cubic")
    for fraction in (0, 1.01, float("nan")):
        with refused("out-of-range", DataError, field="crop_fraction"):
            Resize(32, crop_fraction=fraction)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("shortest", [128, 160])
def test_a_filter_and_a_crop_are_those_of_hugging_faces_image_processors(name: str, shortest: int) -> None:
    image = noise(300, 200)
    size, how = 128, FILTERS[name]
    whole = image.resize((shortest * 3 // 2, shortest), how)  # the shortest edge first, then the middle
    left, top = (whole.width - size) // 2, (whole.height - size) // 2
    expected = np.asarray(whole.crop((left, top, left + size, top + size))).astype(int)
    found = load(encoded(image, "PNG"), Resize(size, "crop", name, size / shortest)).astype(int)
    assert np.abs(found - expected).mean() < 1
    others = [load(encoded(image, "PNG"), Resize(size, "crop", other, size / shortest)) for other in FILTERS if other != name]
    assert all((found != other).any() for other in others)


def test_squash_can_leave_out_the_edges() -> None:
    image = np.zeros((80, 160, 3), np.uint8)
    image[10:70, 20:140] = 250  # three quarters of both sides
    assert load(image, Resize(30, "squash", crop_fraction=0.75)).min() > 150  # at the edges a filter reaches beyond the crop
    assert load(image, Resize(30, "squash")).min() == 0


def test_nearest_takes_pixels_of_the_file_itself() -> None:
    raw = encoded(photo(768, 512), "JPEG", quality=95)
    colours = {tuple(pixel) for pixel in decode(raw).reshape(-1, 3).tolist()}
    assert {tuple(pixel) for pixel in load(raw, Resize(32, filter="nearest")).reshape(-1, 3).tolist()} <= colours


def test_a_crop_is_the_middle_square_of_the_shorter_side() -> None:
    wide = np.zeros((64, 160, 3), np.uint8)
    wide[4:60, 52:108] = 250  # seven eighths of 64 pixels, in the middle
    for raw in (wide, encoded(Image.fromarray(wide), "PNG")):
        cropped = load(raw, Resize(56, "crop", crop_fraction=0.875))
        assert cropped.shape == (56, 56, 3)
        assert cropped.min() > 240
    assert load(wide, Resize(56)).min() == 0


def test_a_jpeg_is_drafted_no_smaller_than_its_crop_needs() -> None:
    raw = encoded(photo(768, 512), "JPEG", quality=95)
    to = Resize(230, "crop", crop_fraction=0.875)
    assert to.minimum_side == 263
    exact = resize(decode(raw), to).astype(int)
    assert np.abs(load(raw, to) - exact).mean() < 2
