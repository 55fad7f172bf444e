"""Covers folders and archives as sets of named files, and the refusal of hostile archives."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import json
import lzma
import os
import tarfile
import tempfile
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossroads.data.readers import read
from crossroads.data.splits import split, split_digest
from crossroads.errors import DataError, ImageRefused
from crossroads.files import archives
from crossroads.files.archives import Limits
from crossroads.files.byte_ranges import END, SHORT_DIGEST_BYTES, ByteRange
from crossroads.files.trees import Folder, Tree, detect_kind, existing, open_archive
from refusals import refused

FILES = {
    "b/2.txt": b"two",
    "b/10.txt": b"ten",
    "a.bin": bytes(range(256)) * 40,
    "c d/é.txt": b"",
    ".hidden": b"x",
    "__MACOSX/a.bin": b"x",
}
DESCRIPTORS = Path("/proc/self/fd")
VISIBLE = ["a.bin", "b/2.txt", "b/10.txt", "c d/é.txt"]


def make_tar(path: Path, files: dict[str, bytes], mode: str = "w", **options: object) -> Path:
    with tarfile.open(path, mode, **options) as tar:  # type: ignore[call-overload]
        for name, raw in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return path


def make_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, raw in files.items():
            archive.writestr(zipfile.ZipInfo(name) if method == zipfile.ZIP_STORED else name, raw)
    return path


def make_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, raw in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(raw)
    return path


def packed(kind: str, tmp_path: Path, files: dict[str, bytes] = FILES) -> Path:
    """Writes the files as a folder or an archive without a suffix."""
    path = tmp_path / "packed"
    if kind == "folder":
        return make_folder(path, files)
    if kind == "stored":
        return make_zip(path, files, zipfile.ZIP_STORED)
    if kind == "zip":
        return make_zip(path, files)
    return make_tar(path, files, {"tar": "w", "gz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}[kind])


def open_tree(path: Path, *, limits: Limits | None = None) -> Tree:
    place = existing(path)
    if place.is_dir():
        return Folder(place)
    span = ByteRange.from_path(place)
    return open_archive(span, detect_kind(span), str(place), limits)


KINDS = ("folder", "zip", "stored", "tar", "gz", "bz2", "xz")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tree_holds_the_same_files(kind: str, tmp_path: Path) -> None:
    tree = open_tree(packed(kind, tmp_path))
    assert tree.names() == VISIBLE
    for name in VISIBLE:
        assert tree.read(name) == FILES[name]
        assert tree.size(name) == len(FILES[name])
        assert tree.byte_range(name).read() == FILES[name]
        assert bytes(tree.byte_range(name).buffer()) == FILES[name]
        assert tree.exists(name)
    assert not tree.exists("nothing.txt")
    with refused("file-unreadable" if kind == "folder" else "no-such-member", DataError):
        tree.read("nothing.txt")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tree_reads_beginnings_and_compares_files_by_short_digests(kind: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(20_000)  # no archive makes it smaller
    files = {
        "noise": noise,
        "copy": noise,
        "first byte": b"?" + noise[1:],
        "last byte": noise[:-1] + b"?",
        "longer": noise + b"?",
        "short": b"abc",
        "short copy": b"abc",
        "other short": b"abd",
        "between": noise[: END + 5],
        "between, other end": noise[: END + 4] + b"?",
        "empty": b"",
    }
    tree = open_tree(packed(kind, tmp_path, files))
    for name, raw in files.items():
        for size in (1, 3, 4096, 19_999, 20_000, 50_000):
            assert tree.head(name, size) == raw[:size]
    digests = {name: tree.short_digest(name) for name in files}
    assert {len(digest) for digest in digests.values()} == {SHORT_DIGEST_BYTES}
    for name, raw in files.items():
        assert {other for other in files if digests[other] == digests[name]} == {other for other in files if files[other] == raw}
    for use in (lambda name: tree.head(name, 10), tree.short_digest):
        with refused("file-unreadable" if kind == "folder" else "no-such-member", DataError):
            use("nothing.txt")


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_files_that_differ_in_their_middles_alone_share_a_short_digest(kind: str, tmp_path: Path) -> None:
    raw = bytes(3 * END)
    tree = open_tree(packed(kind, tmp_path, {"a": raw, "b": raw[: END + 9] + b"?" + raw[END + 10 :]}))
    assert tree.short_digest("a") == tree.short_digest("b")


@pytest.mark.parametrize("kind", KINDS)
def test_many_threads_read_at_once(kind: str, tmp_path: Path) -> None:
    files = {f"{index}.bin": os.urandom(5000) for index in range(40)}
    tree = open_tree(packed(kind, tmp_path, files))
    names = tree.names() * 10
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(tree.read, names)) == [files[name] for name in names]


def test_reading_needs_no_pread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = open_tree(packed("tar", tmp_path))
    monkeypatch.delattr(os, "pread", raising=False)
    assert tree.read("a.bin") == FILES["a.bin"]


def test_a_member_is_a_seekable_stream(tmp_path: Path) -> None:
    stream = open_tree(packed("tar", tmp_path)).byte_range("a.bin").stream()
    assert stream.seek(-256, io.SEEK_END) == 256 * 39
    assert stream.read(3) == b"\x00\x01\x02"
    with pytest.raises(ValueError, match="negative"):
        stream.seek(-99999, io.SEEK_END)


def test_a_later_member_of_the_same_name_wins(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", {"x": b"old", "./x": b"new"})
    tree = open_tree(path)
    assert tree.names() == ["x"]
    assert tree.read("x") == b"new"


def test_long_gnu_and_pax_names_are_read(tmp_path: Path) -> None:
    name = "/".join(["folder" * 10] * 6) + "/é.png"
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        assert open_tree(make_tar(tmp_path / "a.tar", {name: b"1"}, format=form)).names() == [name]


def test_links_among_folders_do_not_loop(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f", {"a/1.txt": b"1"})
    (folder / "a" / "up").symlink_to(folder)
    (folder / "b").symlink_to(folder / "a")
    (folder / "gone.txt").symlink_to(folder / "nowhere")
    assert open_tree(folder).names() == ["a/1.txt", "gone.txt"]


def test_folders_that_link_to_each_other_are_listed_once_each(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f", {f"{i}/1.txt": b"1" for i in range(12)})
    for source in range(12):
        for target in range(12):
            (folder / str(source) / f"to{target}").symlink_to(folder / str(target))
    tree = Folder(folder)
    assert tree.names() == [f"{i}/1.txt" for i in range(12)]
    assert [note.figures["links"] for note in tree.repeat_notes()] == [144]


def test_a_folder_keeps_its_own_name_beside_links_to_it(tmp_path: Path) -> None:
    make_folder(tmp_path / "elsewhere", {"1.txt": b"1"})
    folder = make_folder(tmp_path / "f", {"z/1.txt": b"1"})
    (folder / "a").symlink_to(folder / "z")
    (folder / "c").symlink_to(tmp_path / "elsewhere")
    (folder / "b").symlink_to(tmp_path / "elsewhere")
    tree = Folder(folder)
    assert tree.names() == ["b/1.txt", "z/1.txt"]
    assert [note.figures for note in tree.repeat_notes()] == [{"links": 2, "example": "a"}]


def test_a_class_folder_linked_into_test_is_noted_and_read_once(tmp_path: Path) -> None:
    image = io.BytesIO()
    Image.new("RGB", (4, 4)).save(image, "PNG")
    folder = make_folder(tmp_path / "f", {f"{name}.png": image.getvalue() for name in ("train/a/1", "train/b/1", "test/b/2")})
    (folder / "test" / "a").symlink_to(folder / "train" / "a")
    dataset = read(folder)
    assert len(dataset) == 3
    (note,) = (note for note in dataset.notes if getattr(note, "code", "") == "repeated-links")
    assert note.figures == {"links": 1, "example": "test/a"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f", {"1.png": b"1", "list.csv": b"path,label\npipe.png,a\nzero.png,b\n/dev/zero,c\n1.png,a\n"})
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    dataset = read(folder / "list.csv")
    for row, what in enumerate(("a pipe", "a device", "a device")):
        with pytest.raises(ImageRefused, match=f"received {what}, not a plain file"):
            dataset.read(row)
    assert dataset.read(3) == b"1"
    for name in ("pipe.png", "zero.png"):
        with refused("file-unreadable"):
            Folder(folder).read(name)
        with refused("file-unreadable"):
            read(folder / name)


def test_a_file_of_more_than_the_limit_is_refused_unread(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f", {"list.csv": b"path,label\nlarge.png,a\n"})
    with (folder / "large.png").open("wb") as file:
        file.truncate(archives.MEMBER + 1)
    with pytest.raises(ImageRefused, match="more than the 1073741824"):
        read(folder / "list.csv").read(0)
    with refused("file-unreadable"):
        Folder(folder).read("large.png")


def latin1_names_allowed(folder: Path) -> bool:
    try:
        (folder / os.fsdecode(b"\xe9")).touch()
        (folder / os.fsdecode(b"\xe9")).unlink()
    except (OSError, UnicodeError):
        return False
    return os.fsdecode(b"\xe9") == "\udce9"


def test_names_that_are_not_utf8_are_escaped_once(tmp_path: Path) -> None:
    if not latin1_names_allowed(tmp_path):
        pytest.skip("this file system takes UTF-8 names only")
    folder = tmp_path / os.fsdecode(b"data\xe9")
    for label in (b"caf\xe9", b"caf\\xe9", b"tea"):
        for i in range(4):
            path = folder / os.fsdecode(label) / os.fsdecode(b"%d\xff.png" % i)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(label + b"%d" % i)
    dataset = read(folder)
    assert dataset.classes == ("caf\\xe9", "caf\\xe9~", "tea")
    contents = {dataset.read(row) for row in range(len(dataset))}
    assert contents == {label + b"%d" % i for label in (b"caf\xe9", b"caf\\xe9", b"tea") for i in range(4)}
    texts = [dataset.origin, *dataset.classes, *(dataset.name(row) for row in range(len(dataset)))]
    assert json.dumps(texts, ensure_ascii=False).encode()
    parts = split(dataset, validation=0.25, test=0.25, seed=0)
    assert [len(parts.train), len(parts.validation)] == [6, 3]
    digests = np.zeros((len(dataset), 16), np.uint8)
    assert split_digest(digests, dataset.labels, dataset.classes)


def test_a_table_may_be_in_a_folder_whose_name_is_not_utf8(tmp_path: Path) -> None:
    if not latin1_names_allowed(tmp_path):
        pytest.skip("this file system takes UTF-8 names only")
    inner = tmp_path / os.fsdecode(b"caf\xe9")
    make_folder(inner, {"1.png": b"1", "2.png": b"2", "list.csv": b"path,label\n1.png,a\n2.png,b\n"})
    renamed = inner / os.fsdecode(b"l\xe9.csv")
    for source in (tmp_path, inner, inner / "list.csv", renamed):
        if source == renamed:
            (inner / "list.csv").rename(renamed)
        assert [read(source).read(row) for row in range(2)] == [b"1", b"2"]


def test_tar_member_names_that_are_not_utf8_are_escaped(tmp_path: Path) -> None:
    tree = open_tree(make_tar(tmp_path / "a.tar", {"caf\udce9/1.png": b"1"}))
    assert tree.names() == ["caf\\xe9/1.png"]
    assert tree.read("caf\\xe9/1.png") == b"1"


def test_a_folder_refuses_paths_outside(tmp_path: Path) -> None:
    tree = open_tree(make_folder(tmp_path / "f", {"1.txt": b"1"}))
    for name in ("../x", "/etc/passwd", "a/../../x"):
        with refused("path-outside-folder", received=repr(name)):
            tree.read(name)


EVIL = ("../evil.png", "/evil.png", "a/../../evil.png", "C:/evil.png", "..\\evil.png", "a\\b.png")


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_no_member_leaves_the_archive(name: str, make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = make(tmp_path / "evil", {"fine.png": b"1", name: b"2"})
    with refused("archive-path", received=repr(name)):
        open_tree(path)


def test_a_nul_in_a_zip_name_is_refused(tmp_path: Path) -> None:
    raw = make_zip(tmp_path / "a.zip", {"aXb.png": b"1"}).read_bytes()
    (tmp_path / "a.zip").write_bytes(raw.replace(b"aXb.png", b"a\0b.png"))
    with refused("archive-path"):
        open_tree(tmp_path / "a.zip")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(kind: bytes, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("ants/1.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    with refused("archive-special-file"):
        open_tree(tmp_path / "a.tar")


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("ants/1.jpg")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with refused("archive-special-file"):
        open_tree(tmp_path / "a.zip")


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"1.jpg": b"1"})
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    with refused("archive-encrypted"):
        open_tree(path)


def test_an_unusual_zip_method_is_refused(tmp_path: Path) -> None:
    with refused("zip-method", received="compression method 14 of '1.jpg'"):
        open_tree(make_zip(tmp_path / "a.zip", {"1.jpg": b"1"}, zipfile.ZIP_LZMA))


@pytest.mark.parametrize("kind", ["zip", "tar", "gz", "bz2", "xz"])
@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.8])
def test_a_truncated_archive_is_refused(kind: str, fraction: float, tmp_path: Path) -> None:
    files = {f"{index}.bin": os.urandom(3000) for index in range(20)}
    path = packed(kind, tmp_path, files)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * fraction)])
    with refused("archive-damaged"):
        open_tree(path)


def test_a_tar_cut_between_two_members_is_refused(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", {"1": b"1", "2": b"2"})
    path.write_bytes(path.read_bytes()[:1024])
    with refused("archive-damaged", received="no end mark"):
        open_tree(path)


def test_a_damaged_header_in_the_middle_is_refused(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar", {str(index): b"1" for index in range(5)})
    raw = bytearray(path.read_bytes())
    raw[2048 + 10 : 2048 + 40] = b"\xff" * 30
    path.write_bytes(raw)
    with refused("archive-damaged", received="no valid header at byte 2048"):
        open_tree(path)


def test_a_damaged_zip_member_is_refused_when_it_is_read(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"1.bin": b"abc" * 100, "2.bin": b"fine"}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"abcabc", b"abcabd", 1))
    tree = open_tree(path)
    assert tree.read("2.bin") == b"fine"
    with refused("archive-damaged"):
        tree.read("1.bin")
    zipped = make_zip(tmp_path / "b.zip", {"1.bin": b"abc" * 100})
    raw = zipped.read_bytes()
    place = raw.index(b"1.bin") + len("1.bin")
    zipped.write_bytes(raw[:place] + b"\xff" * 4 + raw[place + 4 :])
    with refused("archive-damaged"):
        open_tree(zipped).head("1.bin", 10)


def test_a_member_never_inflates_beyond_what_it_declares(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"1.bin": bytes(10_000_000)})
    raw = bytearray(path.read_bytes())
    place = raw.index(b"PK\x01\x02") + 24
    raw[place : place + 4] = (100).to_bytes(4, "little")
    path.write_bytes(raw)
    with refused("archive-damaged") as caught:
        open_tree(path).read("1.bin")
    assert "more than the 100 bytes" in str(caught.value.received)
    tracemalloc.start()
    with refused("archive-damaged"):
        open_tree(path).read("1.bin")
    assert tracemalloc.get_traced_memory()[1] < 1_000_000, "it stops at the declared length, not after 10 MB"
    tracemalloc.stop()


def test_archives_beyond_the_limits_are_refused(tmp_path: Path) -> None:
    zeros = {"1.bin": bytes(200_000), "2.bin": b"2"}
    strict = Limits(ratio=100, ratio_from=100_000)
    for make in (make_tar, make_zip):
        path = make(tmp_path / "a", zeros)
        with refused("archive-too-large"):
            open_tree(path, limits=Limits(total=200_000))
        with refused("archive-too-large"):
            open_tree(path, limits=Limits(members=1))
        tree = open_tree(path, limits=Limits(member=1000))
        assert tree.read("2.bin") == b"2"
        with refused("member-too-large"):
            tree.read("1.bin")
    with refused("archive-bomb"):
        open_tree(tmp_path / "a", limits=strict)
    for kind in ("gz", "xz", "bz2"):
        path = make_tar(tmp_path / "b", zeros, f"w:{kind}")
        with refused("archive-bomb"):
            open_tree(path, limits=strict)
        with refused("archive-too-large"):
            open_tree(path, limits=Limits(total=100_000))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_concatenated_and_padded_streams_are_read(pack, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    raw = make_tar(tmp_path / "plain", {"1.bin": b"1" * 5000}).read_bytes()
    (tmp_path / "two").write_bytes(pack(raw[:1000]) + pack(raw[1000:]) + bytes(512))
    assert open_tree(tmp_path / "two").read("1.bin") == b"1" * 5000


def test_a_compressed_file_without_a_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv.gz").write_bytes(gzip.compress(b"path,label\n" * 100))
    with refused("archive-kind"):
        open_tree(tmp_path / "labels.csv.gz")


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, raw: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    path = packed("xz", tmp_path)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Full())
    with refused("temporary-file", received="No space left on device"):
        open_tree(path)


def test_the_temporary_file_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed("gz", tmp_path)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    tree = open_tree(path)
    assert tree.read("a.bin") == FILES["a.bin"]
    assert not list((tmp_path / "tmp").iterdir())


def test_other_files_and_missing_paths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(b"no archive at all" * 100)
    with refused("archive-kind"):
        open_tree(tmp_path / "photo")
    with refused("no-such-file") as caught:
        open_tree(tmp_path / "phot")
    assert "photo" in (caught.value.hint or "")


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="counts open files through /proc")
def test_descriptors_are_closed(tmp_path: Path) -> None:
    path = packed("tar", tmp_path)
    before = len(list(DESCRIPTORS.iterdir()))
    for _ in range(50):
        open_tree(path).read("a.bin")
    assert len(list(DESCRIPTORS.iterdir())) - before < 10


def test_junk_is_hidden_from_names_only() -> None:
    assert archives.is_junk(".DS_Store")
    assert archives.is_junk("Thumbs.db")
    assert not archives.is_junk("thumb.png")


def test_a_shared_archive_is_read(shared_data: Path) -> None:
    tree = open_tree(shared_data / "ants_bees.tar")
    assert len(tree.names()) == 398
    assert tree.read("hymenoptera_data/train/ants/0013035.jpg")[:2] == b"\xff\xd8"
    assert "hymenoptera_data/val/bees" in tree.folders()
