"""Covers the check of words, line lengths and links: it finds each mistake, and none in correct text."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import check_prose  # noqa: E402 - lies beside the package and is not installed


def test_the_glossary_lists_the_words():
    words = check_prose.refused_words(check_prose.GLOSSARY.read_text(encoding="utf-8"))
    assert words["mend"] == "hint, fix"
    assert len(words) > 40


def test_words_are_found_in_names_and_across_line_breaks_but_not_inside_other_words():
    words = {"mend": "hint", "is told": "receives"}
    text = "recommend amended\nHINT_MEND = 1\nthe watcher is\ntold\n"
    assert [line for line, _ in check_prose.word_findings(text, words)] == [2, 3]


def test_long_lines_are_found_in_prose_and_in_code():
    long = "word " * 30
    text = f"{long}\n```\n{long}\n```\n| {long} |\n{'x' * 150}\nshort\n"
    assert [line for line, _ in check_prose.length_findings(text)] == [1, 3]


def test_directives_and_the_help_of_a_command_may_have_long_lines():
    long = "word " * 30
    text = f"```{{eval-rst}}\n{long}\n```\n```console\n$ crossroads --help\n{long}\n$ crossroads\n{long}\n```\n"
    assert [line for line, _ in check_prose.length_findings(text)] == [8]


def test_links_to_missing_files_are_found(tmp_path):
    (tmp_path / "there.md").write_text("")
    page = tmp_path / "page.md"
    text = "[a](there.md#part) [b](https://example.org)\n[c](missing.md)\n{doc}`there` {doc}`gone`\n"
    assert [line for line, _ in check_prose.link_findings(page, text)] == [2, 3]
