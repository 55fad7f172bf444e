"""Covers the report: its sections and their order, that it loads nothing, and that names from the data cannot become markup."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from crossroads.data.findings import Finding
from crossroads.report.html.markup import Html, element
from crossroads.report.html.page import report_page
from crossroads.report.html.training import best_position
from report_subjects import HISTORY, HOSTILE, subject

VOID = {"meta", "img", "input", "line", "path", "rect", "br", "wbr"}


class Parsed(HTMLParser):
    """The elements of a page. It checks that they are nested correctly; cells of tables may lack their ends."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.open, self.text = [], [], []
        self.feed(page)
        assert [name for name in self.open if name not in ("td", "tr")] == []

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.elements.append((name, dict(attributes)))

    def handle_endtag(self, name):
        while self.open[-1] in ("td", "tr") and self.open[-1] != name:
            self.open.pop()
        assert self.open.pop() == name

    def handle_data(self, data):
        self.text.append(data)

    def named(self, name):
        return [attributes for found, attributes in self.elements if found == name]


def sections(page):
    return [attributes["id"] for attributes in Parsed(page).named("section")]


def test_the_sections_come_in_order(tmp_path):
    page = report_page(subject(tmp_path / "run"))
    order = ["verdict", "scores", "evidence", "training", "confusion", "classes", "reliability", "images", "data", "run"]
    assert sections(page) == order


def test_sections_without_evidence_are_left_out(tmp_path):
    made = subject(tmp_path / "run", advice=False, history=(), pictures=False)
    assert sections(report_page(replace(made, predictions=None))) == ["verdict", "scores", "confusion", "classes", "data", "run"]


@pytest.mark.parametrize("k", [2, 5, 43, 200])
def test_any_number_of_classes_fits_in_three_megabytes(tmp_path, k):
    page = report_page(subject(tmp_path / "run", k=k, n=2000))
    assert len(page.encode()) < 3_000_000
    parsed = Parsed(page)
    assert sum(attributes.get("scope") == "row" and "title" not in attributes for attributes in parsed.named("th")) >= k
    identifiers = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))


def test_of_very_many_classes_the_matrix_shows_some(tmp_path):
    made = subject(tmp_path / "run", k=400, n=3000, pictures=False)
    page = report_page(made)
    assert "the 100 classes with most mistakes of 400" in page
    assert page.count("<tr data-images") == 100
    data = json.loads(re.search(r'id="cells">(.*?)</script>', page)[1])
    assert len(data["labels"]) == len(data["classes"]) == 100
    for pair in re.findall(r'data-cell="(\d+),(\d+)"', page):
        assert set(map(int, pair)) <= set(data["labels"])


def test_nothing_is_loaded(tmp_path):
    page = report_page(subject(tmp_path / "run"))
    parsed = Parsed(page)
    (policy,) = [meta["content"] for meta in parsed.named("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe-inline'" not in policy.partition("script-src")[2]
    for name, attributes in parsed.elements:
        for key in ("src", "href"):
            assert attributes.get(key, "#").startswith(("#", "data:image/jpeg;base64,")), (name, attributes)
    assert not re.search(r"https?://|url\(|@import", page)


def test_hostile_names_stay_text(tmp_path):
    made = subject(tmp_path / "<b>run", classes=HOSTILE, n=60)
    made = replace(made, origin="<i>data</i>")
    page = report_page(made)
    parsed = Parsed(page)
    assert len(parsed.named("script")) == 2
    assert all("onerror" not in attributes for _, attributes in parsed.elements)
    assert not parsed.named("i")
    assert "alert(1)" in "".join(parsed.text)
    data = re.search(r'id="cells">(.*?)</script>', page)[1]
    assert json.loads(data)["classes"][0] == HOSTILE[0]
    page.encode("utf-8")


def test_every_image_has_a_text_and_every_chart_a_description(tmp_path):
    parsed = Parsed(report_page(subject(tmp_path / "run")))
    assert all(image["alt"] for image in parsed.named("img"))
    charts = parsed.named("svg")
    assert len(charts) >= 7
    assert all(chart["role"] == "img" and chart["aria-labelledby"] for chart in charts)
    assert len(parsed.named("details")) >= len(charts) - 1


def test_the_images_of_a_cell_refer_to_those_of_the_page(tmp_path):
    page = report_page(subject(tmp_path / "run", k=3, n=80))
    cells = json.loads(re.search(r'id="cells">(.*?)</script>', page)[1])["cells"]
    identifiers = {attributes.get("id") for _, attributes in Parsed(page).elements}
    pictures = [picture for entries in cells.values() for _, _, picture in entries]
    assert {picture[1:] for picture in pictures if picture.startswith("#")} <= identifiers
    assert any(picture.startswith("data:image/jpeg") for picture in pictures)


def test_the_findings_of_an_audit_have_the_pictures_of_their_examples(tmp_path):
    made = subject(tmp_path / "run", k=3, n=40)
    first, second = made.predictions.names[next(iter(made.thumbnails.rows_of(made.predictions)))], "photos/gone.jpg"
    findings = (
        Finding("exact-duplicates", "error", "1 pair <of images>", 1, (f"{first} (class 0) = {second} (class 1)",), "remove one"),
        Finding("small-classes", "warning", "1 class of 3", 1, ("class 2 (4)",), "add images"),
    )
    page = report_page(replace(made, findings=findings))
    assert page.count("<img") == report_page(made).count("<img") + 1
    assert "1 pair &lt;of images&gt;" in page
    assert "class 2 (4)" in page
    assert "No problems were found." in report_page(replace(made, findings=()))


def test_a_report_does_not_depend_on_when_it_is_made(tmp_path):
    made = subject(tmp_path / "run")
    assert report_page(made) == report_page(made)


def test_evidence_of_another_version_is_left_out(tmp_path):
    made = subject(tmp_path / "run")
    advice = {"case": {"number": 9}, "evidence": {"profiles": [{"odd": 1}], "curve": []}}
    page = report_page(replace(made, metrics={**made.metrics, "advice": advice, "race": {"runs": 3}}))
    assert "evidence" not in sections(page)


def test_the_best_epoch_belongs_to_the_kept_phase():
    phases = [{"name": "head", "epochs": 1, "best_epoch": 1}, {"name": "tune", "epochs": 12, "best_epoch": 9}]
    history = [HISTORY[0]._replace(phase="head"), *(epoch._replace(phase="tune") for epoch in HISTORY)]
    assert best_position(history, {"phases": phases, "epochs": 12, "best_epoch": 9}) == 9
    assert best_position(history, {"phases": phases, "epochs": 1, "best_epoch": 1}) == 0
    assert best_position(history, {}) is None


def test_text_is_escaped_unless_it_is_html():
    assert element("p", "<b>", Html("<i>"), 3, None, class_='a"b', hidden=True, id=None) == (
        '<p class="a&quot;b" hidden>&lt;b&gt;<i>3</p>'
    )
    assert element("img", src="x", data_row=2) == '<img src="x" data-row="2"/>'
