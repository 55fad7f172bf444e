"""Covers checkpoints: they are complete after a kill or a full disk, and damage is noticed."""

import tracemalloc
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from crossroads.errors import TrainingError
from crossroads.progress import EpochRecord, Silent
from crossroads.training import checkpoint
from crossroads.training.checkpoint import Checkpoints, TrainingState, history_csv
from crossroads.training.loop import train
from refusals import refused
from tiny_networks import labelled, network, phase


def state(epochs, best):
    return TrainingState("id", tuple(EpochRecord("train", e, 1.5, 0.01, 0.5, 0.4, 0.9) for e in range(1, epochs + 1)), best)


def arrays(value):
    return [np.full((2, 3), value, np.float32), np.array(value, np.int64)]


def saved(folder, epochs=3, best=2):
    kept = Checkpoints(folder)
    for epoch in range(1, epochs + 1):
        kept.save(state(epoch, min(best, epoch)), arrays(epoch))
    return kept


def test_a_saved_state_is_loaded(tmp_path):
    kept = saved(tmp_path)
    assert kept.load() == state(3, 2)
    for epoch in (2, 3):
        for loaded, expected in zip(kept.arrays(epoch), arrays(epoch), strict=True):
            np.testing.assert_array_equal(loaded, expected)
            assert loaded.dtype == expected.dtype


def test_only_the_newest_and_the_best_are_kept(tmp_path):
    saved(tmp_path, epochs=5, best=2)
    assert sorted(path.name for path in tmp_path.glob("*")) == ["epoch-00002.npz", "epoch-00005.npz", "progress.json"]


def test_an_empty_folder_has_no_state(tmp_path):
    assert Checkpoints(tmp_path / "none").load() is None


@pytest.mark.parametrize("name", ["epoch-00003.npz", "epoch-00002.npz"])
def test_a_changed_file_is_refused(tmp_path, name):
    kept = saved(tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    with refused("checkpoint-damaged", TrainingError):
        kept.load()


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"digests": 3}'])
def test_a_damaged_pointer_is_refused(tmp_path, text):
    kept = saved(tmp_path)
    (tmp_path / "progress.json").write_text(text)
    with refused("checkpoint-damaged", TrainingError):
        kept.load()


@pytest.mark.parametrize("failing", ["epoch-00004.npz", "progress.json"])
def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path, monkeypatch, failing):
    kept = saved(tmp_path)
    replacing = checkpoint.replacing

    @contextmanager
    def full(path):
        with replacing(path) as file:
            yield file
            if path.name == failing:
                raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "replacing", full)
    with refused("checkpoint-not-writable", TrainingError) as error:
        kept.save(state(4, 4), arrays(4))
    assert "No space left on device" in error.value.received
    monkeypatch.undo()
    assert kept.load() == state(3, 2)
    assert not list(tmp_path.glob(".*"))


def test_a_disk_without_room_is_refused_before_the_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda folder: SimpleNamespace(free=3_000_000))
    kept = Checkpoints(tmp_path / "not" / "yet")
    kept.require_room(2_000_000)
    with refused("no-disk-space", TrainingError):
        kept.require_room(4_000_000)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda folder: SimpleNamespace(free=99))
    with refused("no-disk-space", TrainingError):
        train(network(), phase(), labelled(16), labelled(8), kept, "id", Silent())
    assert not (tmp_path / "not").exists()


def test_arrays_are_written_and_read_one_by_one(tmp_path):
    """The state of Adam is three times as large as the weights, so it must not be copied."""
    made = (np.full((200_000,), number, np.float32) for number in range(6))
    kept, limit = Checkpoints(tmp_path), 3 * 800_000  # of 4.8 MB in all
    for work in (lambda: kept.save(state(1, 1), made), lambda: [array[0] for array in kept.arrays(1)]):
        tracemalloc.start()
        work()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < limit
    assert [array[0] for array in kept.arrays(1)] == list(range(6))


def test_the_history_has_one_line_per_epoch():
    lines = history_csv(state(2, 1).history).splitlines()
    assert lines[0] == "phase,epoch,seconds,learning_rate,loss,validation_loss,validation_accuracy"
    assert lines[1:] == ["train,1,1.5,0.01,0.5,0.4,0.9", "train,2,1.5,0.01,0.5,0.4,0.9"]
