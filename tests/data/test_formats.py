"""The format of a file is recognised by its first bytes: it is read, or refused by name with a hint."""

from __future__ import annotations

import io
import logging
import struct
import sys
from functools import partial

import numpy as np
import pytest
from PIL import Image

from crossroads.data.formats import IMAGE_SUFFIXES, SUPPORTED, UNSUPPORTED
from crossroads.data.images import decode, decode_with_range, dimensions, has_frames
from crossroads.errors import ImageRefused
from refusals import refused

PAYLOAD = bytes(range(256)) * 2


def boxed(major: bytes, *compatible: bytes) -> bytes:
    """The head of a file of the ISO base media family."""
    brands = major + b"\0\0\0\0" + b"".join(compatible)
    return (8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands + PAYLOAD


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


SMALL = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8))


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (boxed(b"crx ", b"crx ", b"isom"), "camera raw"),
        (boxed(b"isom", b"mp42"), "a video"),
        (b"\xff\x0a" + PAYLOAD, "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + PAYLOAD, "JPEG XL"),
        (encoded(SMALL, "JPEG2000"), "JPEG 2000"),
        (b"\xff\x4f\xff\x51" + PAYLOAD, "JPEG 2000"),
        (b"8BPS\0\1" + PAYLOAD, "Photoshop"),
        (encoded(SMALL, "ICO"), "icon"),
        (encoded(SMALL, "TGA"), "Targa"),
        (encoded(SMALL, "PCX"), "PCX"),
        (encoded(SMALL, "DDS"), "DDS"),
        (b"\x76\x2f\x31\x01" + PAYLOAD, "OpenEXR"),
        (b"#?RADIANCE\n" + PAYLOAD, "Radiance HDR"),
        (b"P7\nWIDTH 2\nHEIGHT 2\n", "PAM"),
        (b"PF\n2 2\n-1.0\n" + bytes(48), "PFM"),
        (encoded(SMALL.convert("L").convert("F"), "PPM"), "PFM"),
        (bytes(128) + b"DICM" + PAYLOAD, "DICOM"),
        (b"\x5c\1\0\0" + bytes(340) + b"n+1\0" + PAYLOAD, "NIfTI"),
        (b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"II*\0\x10\0\0\0CR\2\0" + PAYLOAD, "camera raw"),
        (b"IIU\0" + PAYLOAD, "camera raw"),
    ],
)
def test_an_unsupported_format_is_refused_by_name_with_a_hint(raw: bytes, named: str) -> None:
    for use in (decode, dimensions):
        with pytest.raises(ImageRefused, match=named) as caught:
            use(raw)
        assert caught.value.code in ("unsupported-format", "not-an-image")
        assert caught.value.hint


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
        (b"\r\n <!DOCTYPE html>\n<html><title>404</title>", "HTML"),
        (b"<HTML><body>Quota exceeded</body></HTML>", "HTML"),
        (b"%PDF-1.4\n", "PDF"),
        (b"%!PS-Adobe-3.0", "PostScript"),
        (b"PK\3\4" + PAYLOAD, "zip"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "AppleDouble"),
        (bytes(9000), "zeros"),
        (b"", "0 bytes"),
        (b"GIF88a" + PAYLOAD, "one of JPEG, PNG"),
    ],
)
def test_other_files_with_an_image_suffix_are_recognised(raw: bytes, named: str) -> None:
    with pytest.raises(ImageRefused, match=named):
        decode(raw)


def test_every_suffix_belongs_to_one_format() -> None:
    assert {".heic", ".avif", ".jxl", ".jp2", ".dng", ".nef", ".psd", ".svg", ".dcm", ".exr", ".jpg", ".tif"} <= IMAGE_SUFFIXES
    suffixes = [suffix for kind in (*SUPPORTED, *UNSUPPORTED) for suffix in kind.suffixes]
    assert len(suffixes) == len(set(suffixes)) == len(IMAGE_SUFFIXES)
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in suffixes)
    assert all(kind.opener is None and kind.hint for kind in UNSUPPORTED)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_read_and_rotated(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    raw = encoded(Image.new("RGB", (40, 24), (200, 30, 60)), "AVIF", exif=exif, quality=90)
    expected = (24, 40) if orientation < 5 else (40, 24)
    assert dimensions(raw) == expected
    assert decode(raw).shape == (*expected, 3)
    assert np.abs(decode(raw).astype(int) - (200, 30, 60)).max() < 12


@pytest.mark.parametrize(
    "head", [(b"heix", b"mif1", b"heix"), (b"mif1", b"heic", b"miaf"), (b"msf1", b"hevc"), (b"mif1", b"mif1"), (b"hevs",)]
)
def test_heic_is_recognised_by_its_brands(head: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with refused("missing-extra", ImageRefused):
        decode(boxed(*head))


def test_the_first_picture_of_a_multi_picture_jpeg_is_read() -> None:
    raw = encoded(SMALL, "MPO", save_all=True, append_images=[SMALL.rotate(180)])
    assert np.abs(decode(raw).astype(int) - decode(encoded(SMALL, "JPEG"))).max() < 3
    assert not has_frames(raw), "a further picture of no stated type may be a gain map or a preview"
    index = raw.index(b"MPF\0")
    second = raw.index(struct.pack("<L", 0x030000), raw.index(b"\x02\xb0")) + 16  # after the tag MPEntry
    stereo = raw[:second] + struct.pack("<L", 0x020002) + raw[second + 4 :]
    assert has_frames(stereo), "the other eye"
    cut = raw[: index + 30] + bytes(20) + raw[index + 50 :]
    assert decode(cut).shape == (20, 24, 3), "a damaged index leaves the first picture"
    assert not has_frames(cut)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_further_frames_are_detected(kind: str) -> None:
    assert not has_frames(encoded(SMALL, kind))
    assert has_frames(encoded(SMALL, kind, save_all=True, append_images=[SMALL.rotate(90, expand=False), SMALL.rotate(180)]))


# TIFF


def tiff(array: np.ndarray, photometric: int = 1, form: int = 1, *, bits: int = 0, more: dict[int, int] | None = None) -> bytes:
    """An uncompressed TIFF written by hand, of any bands and numbers; `more` are further or other tags."""
    height, width = array.shape[:2]
    bands = array.shape[2] if array.ndim == 3 else 1
    order = ">" if array.dtype.byteorder == ">" else "<"
    tags = {256: width, 257: height, 258: (bits or array.dtype.itemsize * 8,) * bands, 259: 1, 262: photometric, 273: 8, 277: bands}
    tags |= {278: height, 279: array.nbytes, 284: 1, 339: (form,) * bands} | (more or {})
    where = 8 + array.nbytes
    after = where + 2 + 12 * len(tags) + 4
    directory, outside = struct.pack(f"{order}H", len(tags)), b""
    for tag, value in sorted(tags.items()):
        shorts = struct.pack(f"{order}{len(value)}H", *value) if isinstance(value, tuple) else struct.pack(f"{order}I", value)
        kind, count = (3, len(value)) if isinstance(value, tuple) else (4, 1)
        if len(shorts) > 4:
            shorts, outside = struct.pack(f"{order}I", after + len(outside)), outside + shorts
        directory += struct.pack(f"{order}HHI", tag, kind, count) + shorts.ljust(4, b"\0")
    head = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(f"{order}I", where)
    return head + array.tobytes() + directory + bytes(4) + outside


RNG = np.random.default_rng(7)


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (tiff(RNG.integers(0, 4000, (5, 6, 12)).astype("<u2")), "12 bands of 16 bits"),
        (tiff(RNG.integers(0, 4000, (5, 6, 13)).astype(">u2")), "13 bands of 16 bits"),
        (tiff(RNG.integers(0, 256, (5, 6, 7)).astype(np.uint8), 2), "7 bands of 8 bits"),
        (tiff(RNG.integers(0, 256, (5, 6, 5)).astype(np.uint8), 2), "5 bands of 8 bits"),
        (tiff(RNG.integers(0, 256, (5, 6, 2)).astype(np.uint8)), "2 bands of 8 bits"),
        (tiff(RNG.integers(0, 256, (5, 6, 3)).astype(np.uint8), more={284: 2}), "separate planes"),
        (tiff(RNG.random((5, 6, 3)).astype("<f4"), 2, 3), r"3 bands of 32 bits \(floating-point\)"),
        (tiff(RNG.random((5, 6)).astype("<f2"), 1, 3), r"1 band of 16 bits \(floating-point\)"),
        (tiff(RNG.random((5, 6)).astype("<c8"), 1, 6), r"1 band of 64 bits \(complex\)"),
        (tiff(RNG.integers(0, 9, (5, 6)).astype("<u8")), "1 band of 64 bits"),
        (tiff(RNG.integers(0, 9, (5, 6, 3)).astype("<i2"), 2, 2), r"3 bands of 16 bits \(signed\)"),
        (tiff(RNG.random((5, 6)).astype("<f4"), 1, 3), "floating-point"),
        (tiff(RNG.integers(-9, 9, (5, 6)).astype("<i2"), 1, 2), r"0\.\.65535"),
        (tiff(RNG.integers(0, 256, (5, 6, 3)).astype(np.uint8), 2, more={259: 34887}), "compression"),
        (tiff(RNG.integers(0, 256, (5, 6, 3)).astype(np.uint8), 2, more={50706: 4}), "camera raw"),
        (tiff(RNG.integers(0, 256, (5, 6, 3)).astype(np.uint8), 2, more={254: 1, 330: 8}), "camera raw"),
    ],
)
def test_an_unsupported_tiff_is_refused_by_its_samples(raw: bytes, named: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for use in (decode, partial(decode_with_range, draft=64)):
            with pytest.raises(ImageRefused, match=named) as caught:
                use(raw)
            assert caught.value.code in ("unsupported-samples", "unsupported-compression", "unsupported-format")
    assert not caplog.records


@pytest.mark.parametrize(
    ("array", "photometric"),
    [
        (RNG.integers(0, 256, (5, 6)).astype(np.uint8), 1),
        (RNG.integers(0, 256, (5, 6, 3)).astype(np.uint8), 2),
        (RNG.integers(0, 256, (5, 6, 4)).astype(np.uint8), 2),
        (RNG.integers(0, 256, (5, 6, 4)).astype(np.uint8), 5),
        (RNG.integers(0, 256, (5, 6, 3)).astype(np.uint8), 6),
        (RNG.integers(0, 256, (5, 6, 3)).astype(np.uint8), 8),
        (RNG.integers(0, 65536, (5, 6, 3)).astype("<u2"), 2),
        (RNG.integers(0, 65536, (5, 6)).astype(">u2"), 1),
    ],
)
def test_a_tiff_of_one_three_or_four_channels_is_read(array: np.ndarray, photometric: int) -> None:
    assert decode(tiff(array, photometric)).shape == (5, 6, 3)


def test_a_big_tiff_is_read() -> None:
    np.testing.assert_array_equal(decode(encoded(SMALL, "TIFF", big_tiff=True)), np.asarray(SMALL))


def test_twelve_bits_use_the_full_range_if_the_file_declares_them() -> None:
    values = np.array([[0, 2048, 4095, 16]])
    packed = np.frombuffer(bytes.fromhex("000800FFF010"), np.uint8)
    raw = tiff(packed.reshape(1, 6), bits=12, more={256: 4})
    assert decode(raw)[0, :, 0].tolist() == np.round(values[0] * 255 / 4095).astype(int).tolist()
    assert decode_with_range(raw, 64)[1] == (0, 4095, 4095)


@pytest.mark.parametrize("maxval", [15, 255, 1023, 4095, 65535])
@pytest.mark.parametrize("plain", [False, True])
def test_the_maxval_of_a_pgm_is_white(maxval: int, plain: bool) -> None:
    values = [0, maxval // 3, maxval]
    body = " ".join(map(str, values)).encode() if plain else np.array(values, ">u2" if maxval > 255 else "u1").tobytes()
    pixels, extent = decode_with_range(b"P%d\n3 1\n%d\n" % (2 if plain else 5, maxval) + body, 64)
    assert pixels[0, :, 0].tolist() == [0, 85, 255]
    assert extent.high == extent.full


def test_the_range_of_16_bit_colour_is_measured() -> None:
    dim = (RNG.integers(0, 4096, (20, 30, 3))).astype("<u2")
    extent = decode_with_range(tiff(dim, 2), 64)[1]
    assert extent.dark
    assert dim.max() <= extent.high <= 4095
    assert extent.full == 65535
