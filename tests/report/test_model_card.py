"""Covers the model card: its YAML is valid, and names from the data have no effect in Markdown."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from crossroads.report.model_card import front_matter, model_card
from report_subjects import HOSTILE, subject

yaml = pytest.importorskip("yaml")


def test_the_facts_for_programs_are_those_of_the_hub(tmp_path):
    facts = yaml.safe_load(front_matter(subject(tmp_path / "signs")))
    assert facts["license"] == "apache-2.0"
    assert facts["pipeline_tag"] == "image-classification"
    (model,) = facts["model-index"]
    assert model["name"] == "signs"
    assert model["results"][0]["metrics"][0]["type"] == "accuracy"


@pytest.mark.parametrize(
    ("pretrained", "licence"),
    [
        (None, {}),
        ({"from": "net.onnx", "licence": None}, {}),
        ({"from": "net.onnx", "licence": "MIT"}, {"license": "mit"}),
        ({"from": "net.onnx", "licence": "my own"}, {"license": "other", "license_name": "my own"}),
    ],
)
def test_a_licence_is_stated_only_if_it_is_known(tmp_path, pretrained, licence):
    made = subject(tmp_path / "run")
    manifest = replace(made.manifest, facts={**made.manifest.facts, "pretrained": pretrained})
    facts = yaml.safe_load(front_matter(replace(made, manifest=manifest)))
    assert {name: value for name, value in facts.items() if name.startswith("license")} == licence


def test_the_card_has_its_sections_and_begins_with_yaml(tmp_path):
    text = model_card(subject(tmp_path / "run"))
    _, matter, body = text.split("---\n", 2)
    yaml.safe_load(matter)
    assert re.findall(r"^## (.*)$", body, re.MULTILINE) == ["What it is", "Data", "Results", "How to use it", "Limits"]


def test_hostile_names_have_no_effect(tmp_path):
    text = model_card(subject(tmp_path / "run", classes=HOSTILE, n=60))
    yaml.safe_load(text.split("---\n", 2)[1])
    assert "<script>" not in text.replace("\\<script\\>", "")
    assert "a\\|b" in text
    text.encode("utf-8")
