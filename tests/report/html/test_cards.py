"""Covers the cards in notebooks: each result has one, and its style affects nothing else."""

from __future__ import annotations

import re

import numpy as np
import pytest

import crossroads
from crossroads.advice.candidates import Candidate
from crossroads.advice.cases import Case
from crossroads.advice.evidence import Evidence
from crossroads.advice.size import Size
from crossroads.data.audit import Audit
from crossroads.data.findings import Finding
from crossroads.evaluation import evaluate
from crossroads.recipe import Recipe
from crossroads.report.html.style import card_stylesheet
from crossroads.run.finish import Run
from report_subjects import CURVE, PROFILE, about

FINDING = Finding("blank", "warning", "1 image is <b>blank</b>", 1, ("x.png",), "remove it")
AUDIT = Audit("data", 3, 2, {"<a>": 2, "b": 1}, None, {}, (8, 9, 10), 0, (), (), (), (FINDING,), ())
SCORED = evaluate(np.eye(3)[[0, 1, 1]] * 0.7 + 0.1, np.array([0, 1, 2]), ("<script>", "b", "c"))
HEADLINE = {"accuracy": 0.9, "interval": [0.8, 0.95], "images": 120, "source": "test"}
METRICS = {"headline": HEADLINE, "strategy": "finetune", "backbone": "resnet50", "seconds": 12.3}


def card_of(result):
    shown = result._repr_html_()
    return shown.partition("</style>")[2]


def test_a_run(tmp_path):
    run = Run(tmp_path, METRICS)
    assert "90.0\N{NO-BREAK SPACE}%" in card_of(run)
    assert "120 test images" in card_of(run)
    assert "none" in card_of(run)
    (tmp_path / "report.html").touch()
    assert str(tmp_path / "report.html") in card_of(run)


def test_an_evaluation():
    shown = card_of(SCORED)
    assert "66.7\N{NO-BREAK SPACE}%" in shown
    assert "&lt;script&gt;" in shown
    assert "<script" not in shown


def test_an_audit():
    shown = card_of(AUDIT)
    assert "1 image is &lt;b&gt;blank&lt;/b&gt;" in shown
    assert "tag warning" in shown


def test_advice():
    candidates = [
        Candidate(Recipe(strategy=strategy, backbone="resnet50"), (), about(0.9), 75.0, 5.0, 900.0)
        for strategy in ("finetune", "warm-start")
    ]
    evidence = Evidence(Size(300, 3, 90, 110, None, 0.0, None, 300.0), (PROFILE,), CURVE, None, None, 60.0)
    case = Case(3, "large and similar: finetuning", 0.5, about(0.7), None)
    shown = card_of(crossroads.Advice(case, tuple(candidates), (), evidence, None))
    assert "finetune, resnet50" in shown
    assert "Case 3: large and similar: finetuning." in shown
    assert "87\N{NO-BREAK SPACE}% to 93\N{NO-BREAK SPACE}%" in shown


def test_only_results_have_cards():
    from crossroads.report.html.cards import card

    with pytest.raises(TypeError):
        card("text")


def test_the_style_of_a_card_affects_nothing_else():
    rules = re.sub(r"@media[^{]*\{(.*?\})\s*\}", r"\1", card_stylesheet(), flags=re.DOTALL)
    rules = re.sub(r":is\([^)]*\)", "", rules)
    selectors = [selector.strip() for part in re.findall(r"([^{}]+)\{", rules) for selector in part.split(",")]
    assert selectors
    assert all(".crossroads" in selector for selector in selectors)
