"""Covers broken and hostile data: one error line, exit code 2, no code executed, no files left."""

import io
import pickle
import struct
import sys
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from crossroads import cli
from pictures import folder_of, stripes


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("touch ran",)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb():
    """Returns a PNG whose header declares 50,000 x 50,000 pixels."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def jpeg():
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(file, "JPEG")
    return file.getvalue()


def evil_pickle(path):
    (path / "data.p").write_bytes(pickle.dumps({"features": Evil(), "labels": [1, 2]}))
    return path / "data.p"


def object_npz(path):
    np.savez(path / "data.npz", features=np.array([Evil(), Evil()], dtype=object), labels=np.array([1, 2]))
    return path / "data.npz"


def escaping_zip(path):
    with zipfile.ZipFile(path / "data.zip", "w") as archive:
        archive.writestr("a/1.jpg", jpeg())
        archive.writestr("../../b/2.jpg", jpeg())
    return path / "data.zip"


def pictures(path):
    images, labels = stripes(30)
    return folder_of(path / "pictures", images, labels)


def with_bomb(path):
    (pictures(path) / "level" / "bomb.png").write_bytes(bomb())
    return path / "pictures"


def with_truncated(path):
    (pictures(path) / "level" / "cut.jpg").write_bytes(jpeg()[:400])
    return path / "pictures"


def missing_file(path):
    pictures(path)
    (path / "pictures" / "labels.csv").write_text("path,label\nlevel/0000.png,level\nupright/9999.png,upright\n")
    return path / "pictures" / "labels.csv"


def empty(path):
    (path / "empty").mkdir()
    return path / "empty"


def one_class(path):
    images, _ = stripes(10)
    return folder_of(path / "one", images, ["only"] * 10)


CASES = [
    (evil_pickle, [], ["data.p", "os.system" if sys.platform == "win32" else "posix.system"]),
    (object_npz, [], ["data.npz", "object"]),
    (escaping_zip, [], ["'../../b/2.jpg'"]),
    (with_bomb, ["--strict"], ["bomb.png", "pixels", "50000"]),
    (with_truncated, ["--strict"], ["cut.jpg", "truncated"]),
    (missing_file, [], ["labels.csv line 3", "upright/9999.png"]),
    (empty, [], ["empty", "received"]),
    (one_class, [], ["at least two classes", "only"]),
]


@pytest.mark.parametrize(("make", "options", "words"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_fit_refuses_it_in_one_line(make, options, words, tmp_path, monkeypatch, capsys):
    source = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    network = ["--strategy", "from-scratch", "--backbone", "quiz-cnn"]  # a race would prepare a real network first
    monkeypatch.setattr(sys, "argv", ["crossroads", "fit", str(source), "--out", "run", "--test-fraction", "0", *network, *options])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    shown = capsys.readouterr()
    assert stopped.value.code == 2
    last = shown.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert "Traceback" not in shown.err
    for word in words:
        assert word in last
    assert sorted(tmp_path.rglob("*")) == before


def test_audit_names_each_bad_image(tmp_path, monkeypatch, capsys):
    source = with_bomb(tmp_path)
    (source / "upright" / "cut.jpg").write_bytes(jpeg()[:400])
    monkeypatch.setattr(sys, "argv", ["crossroads", "audit", str(source)])
    with pytest.raises(SystemExit):
        cli.main()
    shown = capsys.readouterr().out
    assert "unreadable" in shown
    assert "bomb.png" in shown
    assert "cut.jpg" in shown
