"""Writes what the reference pages derive from the program: `python docs/generate.py` after an option or a help text changed.

The tables of reference/recipe.md come from the fields of the recipe, the `--help` blocks of reference/command-line.md from the
command line.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from crossroads.recipe import GROUPS, Augmentation, Recipe
from crossroads.recipe.fields import Option, options, toml

REFERENCE = Path(__file__).parent / "reference"
HEADER = "| key | option | values | default | meaning |\n|---|---|---|---|---|\n"
_KINDS = {int: "integer", float: "number", bool: "true or false", str: "string"}


def recipe_tables() -> dict[str, str]:
    """A table in Markdown for each group of options."""
    known = [*options(Recipe).values(), *options(Augmentation).values()]
    return {group: HEADER + "".join(_row(field) for field in known if field.group == group) for group in GROUPS}


def _row(field: Option) -> str:
    default = field.unset if field.default is None else f"`{toml(field.default)}`"
    return f"| `{field.name}` | {_spelled(field)} | {_values(field)} | {default} | {field.help} |\n"


def _spelled(field: Option) -> str:
    if field.name == "data":
        return "`DATA`"
    if field.name == "augmentation" or field.path != field.name:
        return "none"
    name = field.name.replace("_", "-")
    return f"`--{name}`, `--no-{name}`" if field.kind is bool and field.optional else f"`--{name}`"


def _values(field: Option) -> str:
    if field.choices:
        return ", ".join(f"`{toml(choice)}`" for choice in field.choices)
    kind = field.form or _KINDS[field.kind]
    return kind if field.range is None else f"{kind}, {field.range}"


def _write_recipe() -> None:
    path = REFERENCE / "recipe.md"
    page = path.read_text(encoding="utf-8")
    for group, table in recipe_tables().items():
        page = re.sub(rf"(^### {group}\n.*?)(?:^\|[^\n]*\n)+", lambda match: match[1] + table, page, count=1, flags=re.M | re.S)  # noqa: B023
    path.write_text(page, encoding="utf-8")


def _write_command_line() -> None:
    path = REFERENCE / "command-line.md"

    def block(match: re.Match[str]) -> str:
        command = [sys.executable, "-m", "crossroads", *match[1].split()[1:]]
        done = subprocess.run(command, env=os.environ | {"COLUMNS": "80"}, capture_output=True, text=True, check=True)
        shown = done.stdout.replace("python -m crossroads", "crossroads")
        return f"```console\n$ {match[1]}\n{shown.strip()}\n```"

    page = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"```console\n\$ (crossroads [^\n]*--help)\n.*?```", block, page, flags=re.S), encoding="utf-8")


if __name__ == "__main__":
    _write_recipe()
    _write_command_line()
