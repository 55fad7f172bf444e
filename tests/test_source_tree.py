"""Covers what the documentation says about the source tree as a whole."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from crossroads import errors

ROOT = Path(__file__).resolve().parents[1]
SOURCE, TESTS = ROOT / "src" / "crossroads", ROOT / "tests"


def attributes(path: Path) -> set[str]:
    """Returns the attribute names that occur in a module."""
    return {node.attr for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Attribute)}


def imported(path: Path) -> Iterator[str]:
    """Returns the modules that a module imports, or imports from."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{name.name}" for name in node.names))


def test_only_finish_unseals_the_test_set() -> None:
    assert [path.name for path in SOURCE.rglob("*.py") if "unseal" in attributes(path)] == ["finish.py"]


def test_tests_lie_in_the_folders_of_the_source() -> None:
    for path in TESTS.rglob("test_*.py"):
        package = path.parent.relative_to(TESTS)
        assert (SOURCE / package / "__init__.py").is_file(), path
        if package.parts:
            within = ".".join(("crossroads", *package.parts))
            assert any(name == within or name.startswith(f"{within}.") for name in imported(path)), (
                f"{path} tests nothing of {within}"
            )


def test_every_error_has_a_code():
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.CrossroadsError)}
    without = [
        f"{path.name}:{node.lineno}"
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in kinds
        and not any(keyword.arg in ("code", None) for keyword in node.keywords)
    ]
    assert without == []
