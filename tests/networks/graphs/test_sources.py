"""Covers licence and source from the files beside a graph."""

from pathlib import Path

import pytest

from crossroads.networks.graphs.sources import card_entry, identified, licence_beside, source_beside

MIT = "MIT License\n\nCopyright (c) 2020\n\nPermission is hereby granted, free of charge, to any person obtaining a copy\nof"
BSD = "Copyright (c) 2016\nRedistribution and use in source and binary forms, with or without\nmodification, are permitted"


@pytest.mark.parametrize(
    ("text", "identifier"),
    [
        ("                                 Apache License\n                           Version 2.0, January 2004", "Apache-2.0"),
        (MIT, "MIT"),
        (BSD, "BSD-2-Clause"),
        (BSD + "\n* Neither the name of the copyright holder", "BSD-3-Clause"),
        (
            "          GNU AFFERO GENERAL PUBLIC LICENSE\n         Version 3, 19 November 2007",
            "AGPL-3.0-only",
        ),
        ("Creative Commons Attribution-NonCommercial 4.0 International Public License", "CC-BY-NC-4.0"),
        ("All rights reserved", None),
    ],
)
def test_licences_are_known_by_their_words(text, identifier):
    assert identified(text) == identifier


def test_the_own_licence_of_the_project_is_known():
    assert identified((Path(__file__).resolve().parents[3] / "LICENSE").read_text(encoding="utf-8")) == "Apache-2.0"


@pytest.mark.parametrize(
    ("matter", "value"),
    [
        ("license: mit", "mit"),
        ('license: "mit" # free', "mit"),
        ("license:\n- mit\n- apache-2.0", "mit"),
        ("license: [mit]", "mit"),
        ("license:", None),
        ("other: 1", None),
    ],
)
def test_the_front_matter_of_a_card_is_read(matter, value, tmp_path):
    (tmp_path / "README.md").write_text(f"---\n{matter}\n---\nlicense: gpl-3.0\n")
    assert card_entry(tmp_path / "README.md", "license") == value


def test_a_card_comes_before_a_licence_and_other_names_nothing(tmp_path):
    graph = tmp_path / "net.onnx"
    assert (licence_beside(graph), source_beside(graph)) == (None, None)
    (tmp_path / "LICENSE.txt").write_text(MIT)
    assert licence_beside(graph) == "MIT"
    (tmp_path / "README.md").write_text("---\nlicense: other\nbase_model: some/model\n---\n")
    assert (licence_beside(graph), source_beside(graph)) == ("MIT", "some/model")
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    assert licence_beside(graph) == "CC-BY-NC-4.0"
    (tmp_path / "README.md").write_text("---\nlicense: openrail\n---\n")
    assert licence_beside(graph) == "openrail"


def test_the_licence_of_one_file_comes_before_that_of_the_folder(tmp_path):
    (tmp_path / "LICENSE").write_text(MIT)
    (tmp_path / "net.LICENSE").write_text(BSD)
    assert licence_beside(tmp_path / "net.onnx") == "BSD-2-Clause"
    assert licence_beside(tmp_path / "other.onnx") == "MIT"
