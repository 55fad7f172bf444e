"""Covers commands that a user can paste."""

import os
import shlex
import sys

import pytest

from crossroads.report.program import command, free_folder


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """Makes a virtual environment with links to programs, which is not active."""
    folder = tmp_path / "env" / "bin"
    folder.mkdir(parents=True)
    for name in ("crossroads", "python"):
        (folder / name).write_text("")
        (folder / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    return folder


@pytest.mark.parametrize("active", [True, False])
@pytest.mark.parametrize("module", [True, False])
def test_a_command_works_in_an_active_environment_and_outside_of_it(environment, monkeypatch, active, module):
    monkeypatch.setattr(sys, "argv", [str(environment / ("__main__.py" if module else "crossroads"))])
    monkeypatch.setattr(sys, "executable", str(environment / "python"))
    if active:
        monkeypatch.setenv("PATH", str(environment))
    folder = "" if active else f"env{os.sep}bin{os.sep}"
    expected = f"{folder}python -m crossroads" if module else f"{folder}crossroads"
    assert command("audit", "photos") == f"{expected} audit photos"


def test_another_program_of_the_same_name_is_not_called(environment, monkeypatch, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "crossroads").write_text("")
    (other / "crossroads").chmod(0o755)
    monkeypatch.setenv("PATH", str(other))
    monkeypatch.setattr(sys, "argv", [str(environment / "crossroads")])
    assert command().endswith("env/bin/crossroads")


def test_paths_are_quoted(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["crossroads"])
    words = ["fit", "my photos; rm -rf", "--out", "runs/it's"]
    assert shlex.split(command(*words)) == ["crossroads", *words]


def test_the_folder_of_a_suggestion_is_free(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(free_folder("photos")) == os.path.join("runs", "photos")  # noqa: PTH118 - the separator of the system
    (tmp_path / "runs" / "photos").mkdir(parents=True)
    assert free_folder("photos").name == "photos-2"
