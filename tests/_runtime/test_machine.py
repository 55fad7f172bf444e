"""Covers available memory and temporary folders."""

import warnings

from crossroads._runtime import machine
from crossroads._runtime.machine import TemporaryFolder, available_memory_mb


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    usual = available_memory_mb()
    for name, text in (
        ("memory.max", "1073741824"),
        ("memory.current", "805306368"),
        ("memory.stat", "anon 1\ninactive_file 268435456"),
    ):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(machine, "_CONTAINERS", ((str(tmp_path), "memory.max", "memory.current", "inactive_file"),))
    assert available_memory_mb() == min(512, usual or 512)
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(machine, "_CONTAINERS", ((str(tmp_path), "memory.max", "memory.current", "inactive_file"),))
    assert available_memory_mb() != 512


def test_a_temporary_folder_is_removed_with_its_owner_without_a_warning():
    owner = TemporaryFolder()
    path = owner.path
    (path / "file").write_text("")
    with warnings.catch_warnings(action="error"):
        del owner
    assert not path.exists()


def test_work_takes_longer_if_processes_outnumber_the_cores(monkeypatch):
    monkeypatch.setattr(machine, "usable_processors", lambda most: 2)
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (5.0, 0.0, 0.0), raising=False)
    assert machine.crowding() == 2.5
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (0.5, 0.0, 0.0))
    assert machine.crowding() == 1.0
    monkeypatch.delattr(machine.os, "getloadavg")
    assert machine.crowding() == 1.0
