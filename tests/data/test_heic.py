"""HEIC photographs are read upright, in 8 bits and within the limits of other images. Without pillow-heif they are refused."""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from crossroads.data import images
from crossroads.data.images import decode, decode_with_range, dimensions, from_pillow, has_frames, load
from crossroads.data.loading import load_all, require_readable, stream_pictures
from crossroads.data.readers import read
from crossroads.errors import DataError, ImageRefused
from refusals import refused

pillow_heif = pytest.importorskip("pillow_heif")


def blocks(seed: int = 0, width: int = 96, height: int = 64) -> Image.Image:
    """Returns a picture without symmetry that survives compression."""
    values = np.random.default_rng(seed).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    return Image.fromarray(values.repeat(16, 0).repeat(16, 1))


def heic(image: Image.Image, *others: Image.Image, **options: object) -> bytes:
    """Returns an encoded file of one or several pictures."""
    file = pillow_heif.from_pillow(image)
    for other in others:
        file.add_from_pillow(other)
    buffer = io.BytesIO()
    file.save(buffer, **({"quality": 95, "chroma": 444} | options))
    return buffer.getvalue()


def difference(raw: bytes, expected: Image.Image | np.ndarray) -> float:
    """Returns the mean difference between a decoded file and the expected pixels."""
    return float(np.abs(decode(raw).astype(int) - np.asarray(expected).astype(int)).mean())


RAW = heic(blocks())


def test_the_picture_is_read() -> None:
    assert difference(RAW, blocks()) < 2
    assert dimensions(RAW) == (64, 96)
    assert load(RAW, 32).shape == (32, 32, 3)
    assert not has_frames(RAW)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotated_picture_is_turned_once(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    raw = heic(blocks(), exif=exif.tobytes())
    kinds = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
    }  # fmt: skip
    upright = blocks().transpose(kinds[orientation]) if orientation in kinds else blocks()
    assert (b"irot" in raw or b"imir" in raw) == (orientation > 1), "the container is rotated, and EXIF repeats it"
    assert dimensions(raw) == (upright.height, upright.width)
    assert difference(raw, upright) < 2
    opened = pillow_heif.open_heif(raw).to_pillow()
    np.testing.assert_array_equal(from_pillow(opened), decode(raw), "a Pillow image is read as its file")


def test_tiles_as_phones_write_them_are_joined_and_turned() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = blocks(3, 208, 160)
    raw = heic(image, tile_size=64, exif=exif.tobytes())
    assert b"grid" in raw
    assert dimensions(raw) == (208, 160)
    assert difference(raw, image.transpose(Image.Transpose.ROTATE_270)) < 3


def test_ten_bits_become_eight() -> None:
    colour = np.asarray(blocks()).astype("<u2") * 257
    file, buffer = pillow_heif.from_bytes("RGB;16", (96, 64), colour.tobytes()), io.BytesIO()
    file.save(buffer, quality=95, chroma=444)
    assert pillow_heif.open_heif(buffer.getvalue(), convert_hdr_to_8bit=False).info["bit_depth"] == 10
    assert difference(buffer.getvalue(), blocks()) < 2
    grey = np.linspace(0, 65535, 64 * 96).reshape(64, 96).astype(np.uint16)
    pixels, extent = decode_with_range(heic(Image.fromarray(grey), quality=-1), 64)
    assert np.abs(pixels[:, :, 0].astype(int) - (grey // 257)).max() <= 2
    assert (extent.full, extent.dark) == (65535, False)


def test_transparent_parts_are_white() -> None:
    image = blocks().convert("RGBA")
    image.putalpha(Image.fromarray(np.where(np.arange(96) < 48, 0, 255).astype(np.uint8)[None].repeat(64, 0)))
    pixels = decode(heic(image))
    assert pixels[:, :40].min() > 250
    assert np.abs(pixels[:, 56:].astype(int) - np.asarray(blocks())[:, 56:]).mean() < 3


def test_the_primary_picture_of_several_is_read() -> None:
    raw = heic(blocks(1), blocks(2), blocks(3), primary_index=1)
    assert difference(raw, blocks(2)) < 2
    assert has_frames(raw)


def test_a_small_size_is_not_read_from_the_thumbnail() -> None:
    large = blocks().resize((768, 512))
    with_thumbnail = heic(large, thumbnails=[128])
    assert pillow_heif.open_heif(with_thumbnail).info["thumbnails"]
    np.testing.assert_array_equal(load(with_thumbnail, 32), load(heic(large), 32))


def test_a_large_picture_is_refused_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    for use in (decode, dimensions):
        with refused("image-too-large", ImageRefused):
            use(RAW)


def test_a_header_that_lies_about_the_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 10_000)
    raw = heic(blocks().resize((1024, 1024)))
    at = raw.index(b"ispe") + 8
    small = raw[:at] + struct.pack(">II", 64, 64) + raw[at + 8 :]
    assert dimensions(small) == (64, 64)
    with pytest.raises(ImageRefused):
        decode(small)


@pytest.mark.parametrize("tolerant", [False, True])
def test_a_truncated_file_is_refused_even_if_pillow_is_set_to_accept_it(tolerant: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    for length in (100, len(RAW) // 2, len(RAW) - 1):
        with refused("image-truncated", ImageRefused):
            decode(RAW[:length])


def test_what_cameras_append_is_ignored() -> None:
    for trailer in (b"\0\0\0\x20mpvd" + bytes(24), b"SEFH" + bytes(range(40)) + b"SEFT"):
        np.testing.assert_array_equal(decode(RAW + trailer), decode(RAW))


def test_a_damaged_file_gives_pixels_or_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 10_000)
    rng = np.random.default_rng(0)
    for _ in range(60):
        raw = bytearray(RAW)
        for at in rng.integers(0, len(raw), rng.integers(1, 8)).tolist():
            raw[at] = int(rng.integers(256))
        try:
            assert decode(bytes(raw)).size <= 30_000
        except ImageRefused:
            continue


@pytest.mark.parametrize("codec", [b"vvc1", b"j2k1", b"zzzz"])
def test_other_codecs_are_refused(codec: bytes) -> None:
    with refused("unsupported-format", ImageRefused) as caught:
        decode(RAW.replace(b"hvc1", codec))
    assert "JPEG" in str(caught.value.hint)


def test_threads_decode_alike() -> None:
    expected = decode(RAW)
    with ThreadPoolExecutor(4) as pool:
        assert all((pixels == expected).all() for pixels in pool.map(decode, [RAW] * 24))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_decodes(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(RAW)
    code = """
import os, sys
from crossroads.data.images import decode
raw = open(sys.argv[1], "rb").read()
size = decode(raw).size
child = os.fork()
if not child:
    os._exit(decode(raw).size != size)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.heic")], timeout=120).returncode == 0


def photos(folder: Path) -> Path:
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            (folder / name / f"IMG_{number}.HEIC").write_bytes(heic(blocks(number + len(name))))
    return folder


def test_folders_archives_tables_and_pictures_give_the_same_pixels(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos")
    paths = sorted(folder.rglob("*.HEIC"))
    expected = np.stack([load(path.read_bytes(), 16) for path in paths])
    table = tmp_path / "labels.csv"
    table.write_text("path,label\n" + "".join(f"photos/{path.relative_to(folder)},{path.parent.name}\n" for path in paths))
    labels = [path.parent.name for path in paths]
    sources = [folder, shutil.make_archive(str(tmp_path / "packed"), "zip", folder), table, (paths, labels)]
    sources.append(([path.read_bytes() for path in paths], labels))
    for source in sources:
        loaded = load_all(read(source), 16)
        assert not loaded.refusals
        np.testing.assert_array_equal(loaded.pixels, expected)
    np.testing.assert_array_equal(np.stack([result.image for result in stream_pictures(paths, 16)]), expected)


def test_without_pillow_heif_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = read(photos(tmp_path))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for use in (decode, dimensions, has_frames):
        with refused("missing-extra", ImageRefused) as caught:
            use(RAW)
        assert ".[heic]" in str(caught.value.hint)
    with refused("unreadable-class", DataError) as unreadable:
        require_readable(data)
    assert ".[heic]" in str(unreadable.value)
