"""Runs the example notebook of the documentation, and compares what it prints with what it shows."""

from __future__ import annotations

import nbformat
import pytest
from nbclient import NotebookClient

from docs_pages import ROOT, same_structure

NOTEBOOK = ROOT / "docs" / "tutorial" / "example.ipynb"


def printed(cell: nbformat.NotebookNode) -> str:
    """Returns what a cell printed, without notes and progress."""
    return "".join(output["text"] for output in cell.get("outputs", ()) if output.get("name") == "stdout")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> list[tuple[nbformat.NotebookNode, nbformat.NotebookNode]]:
    """Returns each cell of code as it is committed, and as it is after a run in an empty folder."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    shown = nbformat.read(NOTEBOOK, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CROSSROADS_CACHE", str(folder / "features"))
        NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    return [pair for pair in zip(shown.cells, notebook.cells, strict=True) if pair[0].cell_type == "code"]


def test_the_notebook_prints_what_it_shows(run) -> None:
    for shown, real in run:
        assert same_structure(printed(shown), printed(real)), shown.source


def test_the_notebook_is_committed_with_its_outputs(run) -> None:
    for shown, real in run:
        assert bool(shown.outputs) == bool(real.outputs), shown.source
