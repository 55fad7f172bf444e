"""Runs the fenced blocks of one Markdown page of the documentation, in order and in one folder.

The language of a block decides what happens with it:

    console   lines that begin with ``$ `` are run; the lines after each are its output
    python    is executed, in one namespace per page; if the first line is a comment with a file name, it is written to that file
    javascript  is written to the file that its first line names in a comment
    toml      is a recipe, and is written to the file that its first line names in a comment
    text      is the output of the block before it
    others    (csv, json, Sphinx directives, no language) are not run

Only the structure of outputs is compared: a number matches any number, several spaces or dashes match one, ``…`` matches anything
in a line, and a line that is only ``…`` matches any number of lines. A page may break a long line where the next one is indented.
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
SHOWN_ONLY = ("", "cpp", "csv", "javascript", "json", "mermaid")
NOT_RUN = ("make ", "pip ", "git ", "cd ", "mkdir ", ". .venv/", "docker ", "ARTIFACT=", "crossroads serve ")
"""Commands that set up or change the reader's machine, run other tests, or serve; `Page.skipped` lists those that were met."""

BREAK = "\0"
"""Stands for a line break before an indented line, which the output may lack."""

_FENCE = re.compile(r"^(?P<ticks>```+)(?P<language>\S*)[^\n]*\n(?P<body>.*?)^(?P=ticks) *$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w./-]+\.(?:py|toml))")
_SHELL = set("|<>&;*$()`")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, and the number of its first line in the page."""

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
    """Returns the fenced blocks of a page. Refuses an indented block, as in a list, because it would not be run."""
    if (indented := re.search(r"^[ \t]+```", text, re.MULTILINE)) is not None:
        raise AssertionError(f"line {text[: indented.end()].count(chr(10)) + 1}: a fence must not be indented")
    for match in _FENCE.finditer(text):
        yield Block(match["language"], match["body"], text[: match.start("body")].count("\n") + 1)


def commands(block: Block) -> Iterator[Command]:
    """Returns the commands of a console block. A command that ends in a backslash continues on the next line."""
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
    """Whether `real` is what the page shows, apart from numbers and omissions."""
    pattern = ""
    shown = re.sub(r"\n +(?=[^\s…])", BREAK, shown)
    for line in _plain(shown).splitlines():
        if line == "…":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += "[^\n]*".join(re.escape(part) for part in line.split("…")).replace(BREAK, r"[ \n]") + r"\n"
    return re.fullmatch(pattern, _plain(real) + "\n" if real.strip() else "") is not None


def _plain(text: str) -> str:
    """Replaces numbers by 0 and several dashes or spaces by one. Removes spaces and empty lines at the ends."""
    text = re.sub(r"\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?", "0", text)
    text = re.sub(r"-{2,}", "--", text)
    return "\n".join(re.sub(r" +", " ", line).strip() for line in text.splitlines()).strip()


@dataclass
class Page:
    """A page that is run in the current folder.

    Attributes:
        path: The Markdown file.
        known: The outputs of commands that another page has run with this result. They are compared, and not run again.
        outputs: The output of each command.
        skipped: The commands that were not run because they are among `NOT_RUN`.
    """

    path: Path
    known: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Runs every block. Raises AssertionError with the line of the first block that does not do what the page says."""
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
            elif block.language == "javascript":
                Path(block.body.partition("\n")[0].removeprefix("// ")).write_text(block.body, encoding="utf-8")
            elif block.language == "text":
                self._compare(block.line, block.body, output)
            elif block.language not in SHOWN_ONLY and not block.language.startswith("{"):
                raise AssertionError(f"{self.path.name} line {block.line}: nothing is known of {block.language!r} blocks")

    def _python(self, block: Block, namespace: dict[str, object]) -> str:
        if (named := _FILE.match(block.body)) is not None:
            Path(named[1]).write_text(block.body, encoding="utf-8")
            return ""
        # Empty lines replace the lines of the page above the block, so that a traceback names the line of the page.
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
        if command.text in self.known:
            self._compare(command.line, command.shown, self.known[command.text])
            return
        simple = command.text.startswith("crossroads ") and not _SHELL & set(command.text)
        status, output = in_process(command.text) if simple else _in_shell(command.text)
        ended = [line for line in command.shown.splitlines() if not line.startswith(" ")][-1:]
        expected = 2 if ended and ended[0].startswith("error: ") else 0
        assert status == expected, f"{self.path.name} line {command.line}: `{command.text}` exits with {status}:\n{output}"
        self.outputs[command.text] = output
        self._compare(command.line, command.shown, output)

    def _compare(self, line: int, shown: str, real: str) -> None:
        assert same_structure(shown, real), f"{self.path.name} line {line} shows\n{shown}\nbut the output is\n{real}"


def in_process(text: str) -> tuple[int, str]:
    """Runs one `crossroads` command in this process, where the libraries are already loaded. Returns exit status and output."""
    output, status = io.StringIO(), 0
    with (
        patch.object(sys, "argv", shlex.split(text)),
        # Otherwise the command line would take its name from the start of the tests, such as `python -m pytest`.
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
    """Runs any other command, in a shell that finds this Python and its scripts first."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        text, shell=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode, done.stdout
