"""Covers licence and source from the files beside a graph."""

from pathlib import Path

import pytest

import crossroads
from crossroads.errors import RecipeError
from crossroads.networks.graphs.sources import card_entry, identified, licence_beside, note_on_origin, source_beside
from pictures import stripes
from refusals import refused
from tiny_graphs import SIZE, convnet, written
from watchers import Notes

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


@pytest.mark.parametrize(
    ("licence", "source", "unknown"), [(None, None, ["licence", "source"]), ("MIT", None, ["source"]), (None, "x", ["licence"])]
)
def test_what_is_unknown_is_asked_for(licence, source, unknown):
    note = note_on_origin("net.onnx", licence, source)
    assert (note.code, note.figures) == (f"{unknown[0]}-unknown", {"file": "net.onnx", "unknown": unknown})


def test_nothing_is_asked_for_if_both_are_known():
    assert note_on_origin("net.onnx", "MIT", "hf:owner/name") is None


def fitted(path, out, watcher, **options):
    images, labels = stripes(40, size=SIZE)
    options = {"strategy": "feature-extraction", "preprocessing": "tf", "validation": 0.25} | options
    return crossroads.fit((images, labels), out=out, backbone=str(path), watcher=watcher, **options)


def test_licence_and_source_are_stated_and_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSROADS_CACHE", str(tmp_path / "cache"))
    path = written(convnet(), tmp_path / "net.xml")
    asked, watcher = Notes(), Notes()
    origin = crossroads.load(fitted(path, tmp_path / "a", asked).artifact).manifest.facts["pretrained"]
    assert [note.figures["unknown"] for note in asked.said if note.code == "licence-unknown"] == [["licence", "source"]]
    assert (origin["licence"], origin["source"]) == (None, None)
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    stated = {"backbone_licence": "Apache-2.0", "backbone_source": "https://example.org/net"}
    run = fitted(path, tmp_path / "b", watcher, **stated)
    assert not [note for note in watcher.said if note.code in ("licence-unknown", "source-unknown")]
    facts = crossroads.load(run.artifact).manifest.facts
    assert facts["pretrained"] == run.metrics["weights"] | {"licence": "Apache-2.0", "source": "https://example.org/net"}
    assert facts["pretrained"]["sha256"] == origin["sha256"]
    assert stated.items() <= facts["recipe"].items()


@pytest.mark.parametrize("name", ["backbone_licence", "backbone_source"])
def test_licence_and_source_have_no_effect_on_other_backbones(name, tmp_path):
    with refused("option-without-effect", RecipeError, field=name):
        fitted("efficientnet-lite0", tmp_path / "run", Notes(), preprocessing=None, **{name: "x"})
