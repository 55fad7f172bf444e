"""Checks what people read: words that must not come back, lines of prose and code that are too long, links that lead nowhere.

The words stand in the second table of docs/reference/glossary.md. Run by `make check`; prints one line per finding.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GLOSSARY = ROOT / "docs" / "reference" / "glossary.md"
EXEMPT = ("docs/reference/glossary.md", "tests/test_check_prose.py")
"""Files that name the words in order to refuse them."""
FOLDERS = ("src", "tests", "benchmarks", "tools", "docs")
LENGTH = 100

_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_ROLE = re.compile(r"\{doc\}`(?:[^`<]*<)?([^`>]+)>?`")


def checked_files() -> list[Path]:
    """The program, its tests, and every page of the documentation."""
    inside = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".md"))
    return sorted([*inside, *ROOT.glob("*.md"), ROOT / "Makefile", ROOT / "pyproject.toml"])


def refused_words(glossary: str) -> dict[str, str]:
    """Each word of the second table, in lower case, with what to write instead."""
    table = glossary.partition("| not | but |")[2]
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", table, re.MULTILINE)
    return {word.strip(): instead for words, instead in rows for word in words.split(",")}


def word_findings(text: str, words: dict[str, str]) -> Iterator[tuple[int, str]]:
    """Line numbers and messages. A word counts inside a name too, but not inside a longer word.

    A line with the comment ``prose: keep`` is exempt.
    """
    text = "\n".join("" if "prose: keep" in line else line for line in text.splitlines())
    joined = "|".join(re.escape(word).replace(r"\ ", r"[\s_]+") for word in sorted(words, key=len, reverse=True))
    for match in re.finditer(rf"(?<![a-z])(?:{joined})(?![a-z])", text, re.IGNORECASE):
        word = re.sub(r"[\s_]+", " ", match[0].lower())
        yield text.count("\n", 0, match.start()) + 1, f"write {words[word]!r}, not {word!r}"


def length_findings(text: str) -> Iterator[tuple[int, str]]:
    """Lines over the limit, in prose and in code.

    Tables, generated blocks, Sphinx directives, the help of a command and lines that are one long link may be longer.
    """
    block: str | None = None  # the language of the code, None outside
    generated = shows_help = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("<!--"):
            generated = ":begin" in line
        elif line.lstrip().startswith("```"):
            block, shows_help = (line.strip().strip("`") if block is None else None), False
        elif line.startswith("$ "):
            shows_help = line.endswith(" --help")
        if generated or shows_help or len(line) <= LENGTH:
            continue
        exempt = line.startswith("|") or " " not in line.strip()[:LENGTH] if block is None else block.startswith("{")
        if not exempt:
            yield number, f"{len(line)} characters; the limit is {LENGTH}"


def link_findings(page: Path, text: str) -> Iterator[tuple[int, str]]:
    """Relative links to files that do not exist."""
    for match in [*_LINK.finditer(text), *_ROLE.finditer(text)]:
        target = match[1].partition("#")[0]
        if not target or "://" in target or target.startswith("mailto:"):
            continue
        home = ROOT / "docs" if match.re is _ROLE and target.startswith("/") else page.parent
        path = home / target.lstrip("/")
        if match.re is _ROLE:
            path = path.with_name(f"{path.name}.md")
        if not path.exists():
            yield text.count("\n", 0, match.start()) + 1, f"the link {match[1]} leads nowhere"


def main() -> int:
    """Print every finding. Returns 1 if there is one."""
    words = refused_words(GLOSSARY.read_text(encoding="utf-8"))
    failed = False
    for page in checked_files():
        name = page.relative_to(ROOT).as_posix()
        text = page.read_text(encoding="utf-8")
        findings = [] if name in EXEMPT else list(word_findings(text, words))
        if page.suffix == ".md":
            findings += [*length_findings(text), *link_findings(page, text)]
        for line, message in sorted(findings):
            failed = True
            print(f"{name}:{line}: {message}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
