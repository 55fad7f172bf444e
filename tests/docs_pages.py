"""Runs what the documentation shows: the fenced blocks of one Markdown page, in order, in one folder.

What a block is follows from its language:

    console   lines that begin with ``$ `` are run; what follows each is its output
    python    is executed, in one namespace a page; where the first line is a comment with a file name, it is written to that file
    toml      is a recipe, and is written to the file that its first line names in a comment
    text      is the output of the block before it
    csv, json, Sphinx directives and no language at all: shown, not run

Outputs are compared in their structure: a number stands for any number, a run of spaces or dashes for one, ``…`` for anything in a
line, and a line with nothing but ``…`` for any number of lines.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from crossroads import cli
from crossroads.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
SHOWN_ONLY = ("", "csv", "json", "mermaid")
NOT_RUN = ("make ", "pip ", "git ", "cd ", "mkdir ", ". .venv/")
"""Commands that set up or change the reader's machine, or run other tests; `Page.skipped` lists those that were met."""

_FENCE = re.compile(r"^(?P<ticks>```+)(?P<language>\S*)[^\n]*\n(?P<body>.*?)^(?P=ticks) *$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w./-]+\.(?:py|toml))")
_SHELL = set("|<>&;*$()`")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, the number of its first line in the page."""

    language: str
    body: str
    line: int


@dataclass(frozen=True)
class Command:
    """One command of a console block with the output that the page shows for it."""

    text: str
    shown: str
    line: int


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page. One that is indented, as in a list, would not be run, and so it is refused."""
    if (indented := re.search(r"^[ \t]+```", text, re.MULTILINE)) is not None:
        raise AssertionError(f"line {text[: indented.end()].count(chr(10)) + 1}: a fence must not be indented")
    for match in _FENCE.finditer(text):
        yield Block(match["language"], match["body"], text[: match.start("body")].count("\n") + 1)


def commands(block: Block) -> Iterator[Command]:
    """The commands of a console block; one that ends in a backslash goes on in the next line."""
    lines = block.body.splitlines()
    at = 0
    while at < len(lines):
        if not lines[at].startswith("$ "):
            raise AssertionError(f"line {block.line + at}: a console block begins with a command, not with {lines[at]!r}")
        start, text = at, lines[at][2:]
        while text.endswith("\\"):
            at += 1
            text = text[:-1].rstrip() + " " + lines[at].strip()
        at += 1
        shown = at
        while at < len(lines) and not lines[at].startswith("$ "):
            at += 1
        yield Command(text, "\n".join(lines[shown:at]), block.line + start)


def same_structure(shown: str, real: str) -> bool:
    """Whether `real` is what the page shows, but for numbers and what the page leaves out."""
    pattern = ""
    for line in _plain(shown).splitlines():
        if line == "…":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += "[^\n]*".join(re.escape(part) for part in line.split("…")) + r"\n"
    return re.fullmatch(pattern, _plain(real) + "\n" if real.strip() else "") is not None


def _plain(text: str) -> str:
    """Numbers as 0, dashes and spaces as one, no spaces at the ends, no empty lines at the ends."""
    text = re.sub(r"\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?", "0", text)
    text = re.sub(r"-{2,}", "--", text)
    return "\n".join(re.sub(r" +", " ", line).strip() for line in text.splitlines()).strip()


@dataclass
class Page:
    """One page being run in the current folder.

    Attributes:
        path: The Markdown file.
        skipped: The commands that were not run because they are among `NOT_RUN`.
    """

    path: Path
    skipped: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Run every block. Raises AssertionError that names the line of the first that does not do what the page says."""
        namespace: dict[str, object] = {"__name__": "__main__"}
        output = ""
        for block in blocks(self.path.read_text(encoding="utf-8")):
            if block.language == "console":
                for command in commands(block):
                    self._command(command)
            elif block.language == "python":
                output = self._python(block, namespace)
            elif block.language == "toml":
                self._recipe(block)
            elif block.language == "text":
                self._compare(block.line, block.body, output)
            elif block.language not in SHOWN_ONLY and not block.language.startswith("{"):
                raise AssertionError(f"{self.path.name} line {block.line}: nothing is known of {block.language!r} blocks")

    def _python(self, block: Block, namespace: dict[str, object]) -> str:
        if (named := _FILE.match(block.body)) is not None:
            Path(named[1]).write_text(block.body, encoding="utf-8")
            return ""
        # As many empty lines in front as the page has, so that a traceback names the line of the page.
        code = compile("\n" * (block.line - 1) + block.body, str(self.path), "exec")
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(code, namespace)
        return output.getvalue()

    def _recipe(self, block: Block) -> None:
        where = f"{self.path.name} line {block.line}"
        Recipe.from_mapping(tomllib.loads(block.body), where)
        if (named := _FILE.match(block.body)) is not None:
            Path(named[1]).write_text(block.body, encoding="utf-8")

    def _command(self, command: Command) -> None:
        if command.text.startswith(NOT_RUN):
            self.skipped.append(command.text)
            return
        simple = command.text.startswith("crossroads ") and not _SHELL & set(command.text)
        status, output = in_process(command.text) if simple else _in_shell(command.text)
        expected = 2 if command.shown.rpartition("\n")[2].startswith("error: ") else 0
        assert status == expected, f"{self.path.name} line {command.line}: `{command.text}` exits with {status}:\n{output}"
        self._compare(command.line, command.shown, output)

    def _compare(self, line: int, shown: str, real: str) -> None:
        assert same_structure(shown, real), f"{self.path.name} line {line} shows\n{shown}\nbut the output is\n{real}"


def in_process(text: str) -> tuple[int, str]:
    """Exit status and output of one `crossroads` command, run in this process, where the libraries are loaded already."""
    output, status = io.StringIO(), 0
    with (
        patch.object(sys, "argv", shlex.split(text)),
        # Or the command line would take its name from how the tests were started, such as `python -m pytest`.
        patch.object(sys.modules["__main__"], "__package__", None),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
    ):
        try:
            cli.main()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return status, output.getvalue()


def _in_shell(text: str) -> tuple[int, str]:
    """Any other command, in a shell that finds this Python and its scripts first."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        text, shell=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode, done.stdout
