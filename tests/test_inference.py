"""Covers graphs that threads, forked processes and pickles share."""

from __future__ import annotations

import copy
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from crossroads import artifact
from crossroads.errors import ArtifactError
from crossroads.inference import BATCH, Graph, Part
from refusals import refused
from tiny_artifact import contents, pixels

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks/ is not installed

from benchmarks._sharing import FIRSTS
from benchmarks.threads import start


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("inference") / "run"
    artifact.write(run, contents(), {})
    return run


@pytest.mark.parametrize("first", FIRSTS)
def test_threads_may_share_a_predictor_from_its_first_request_on(folder, first):
    # Only a process that has not used OpenVINO yet can hang. `python -m benchmarks threads` starts thousands.
    assert start(folder, first, patience=120)[0] == "finished"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")
@pytest.mark.parametrize("n", [1, BATCH * 3])
def test_a_forked_process_may_use_the_graph_of_its_parent(folder, n):
    same_in_a_forked_process(Graph(folder / "model.xml"), pixels(n))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")
def test_a_forked_process_may_use_a_part_of_a_graph_of_its_parent(folder):
    graph = Graph(folder / "model.xml")
    part = Part(graph.model)
    np.testing.assert_allclose(part(pixels(3))[0], graph(pixels(3)), atol=1e-6)
    same_in_a_forked_process(lambda images: part(images)[0], pixels(3))


def same_in_a_forked_process(compute, images):
    """Checks that a forked process and its parent compute the same."""
    expected = compute(images)
    child = os.fork()
    if not child:  # it must neither hang, nor crash at its end, nor continue with the tests
        try:
            os._exit(0 if np.array_equal(compute(images), expected) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert np.array_equal(compute(images), expected)


def test_a_pickled_graph_is_read_again_with_its_threads(folder, tmp_path):
    graph = Graph(folder / "model.xml", threads=1)
    for again in (pickle.loads(pickle.dumps(graph)), copy.deepcopy(graph)):
        assert again.threads == 1
        assert np.array_equal(again(pixels(3)), graph(pixels(3)))
    moved = folder.rename(tmp_path / "moved")
    try:
        with refused("not-a-graph", ArtifactError):
            copy.copy(graph)
    finally:
        moved.rename(folder)
