"""Defines the command line. Each command reads its options, calls one function of the library, and shows the result."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import typer

from crossroads._runtime.process import process_settings

# Importing a module adds its commands.
from crossroads.cli import _advise, _explain, _export, _fit, _networks, _predict, _report, _serve, _use  # noqa: F401
from crossroads.cli._app import INTERRUPTED, app
from crossroads.errors import CrossroadsError
from crossroads.recipe.fields import REMOVED, RENAMED
from crossroads.report.streams import escape_standard_streams

__all__ = ["app", "main"]

_ORDER = (
    *("audit", "advise", "fit", "evaluate", "report", "compare", "info"),
    *("predict", "explain", "embed", "serve", "export", "backbones", "demo"),
)
app.registered_commands.sort(key=lambda command: _ORDER.index(getattr(command.callback, "__name__", "")))

# Typer would show these itself, over several lines. Here every mistake has the same form.
UsageError: Any = typer.BadParameter.__base__


@process_settings()
def main() -> None:
    """Runs the command line. A user's mistake gives one line on the standard error stream and the exit code 2."""
    escape_standard_streams()
    try:
        code = app(args=sys.argv[1:] or ["--help"], prog_name="crossroads", standalone_mode=False)
        if code == INTERRUPTED:  # Typer turns Ctrl-C into this
            _fail("stopped", code)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, so that a closed pipe causes no traceback
        sys.exit(code)
    except CrossroadsError as error:
        _fail(error.text(_spelled), error.exit_code)
    except UsageError as error:
        where = f"{error.ctx.command_path} --help" if error.ctx else "crossroads --help"
        _fail(f"{_usage_message(error)}; see {where}", error.exit_code)
    except BrokenPipeError:
        # The reader of our output is gone, as in `| head`; nobody can see a message.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        _fail(f"{error.filename or 'a file'} must be writable; received {error.strerror}; make room or choose another place", 2)


def _spelled(name: str) -> str:
    """Spells a recipe field or an argument as the command line does: ``--freeze-to``, ``DATA``. Other names stay as they are."""
    return _spellings(typer.main.get_command(app)).get(name, name)


def _spellings(command: Any) -> dict[str, str]:
    """Returns the spelling of each parameter of a command and of its subcommands."""
    spellings: dict[str, str] = {}
    for inner in getattr(command, "commands", {}).values():
        spellings |= _spellings(inner)
    return spellings | {
        parameter.name: parameter.opts[0] if parameter.param_type_name == "option" else parameter.metavar
        for parameter in command.params
    }


def _usage_message(error: Any) -> str:
    """Returns Typer's message. Adds the new name of a renamed option, or the known commands if a command is missing or unknown."""
    message: str = error.format_message().rstrip(".")
    old = getattr(error, "option_name", "").lstrip("-").replace("-", "_")
    if old in RENAMED:
        return f"{error.option_name} has a new name; use {_spelled(RENAMED[old])}"
    if old in REMOVED:
        return f"{error.option_name} was removed; leave it out"
    commands = ", ".join(sorted(getattr(error.ctx and error.ctx.command, "commands", ())))
    if message == "Missing command":
        return f"{error.ctx.command_path} needs a command: {commands}"
    return (
        f"{message}; known commands: {commands}"
        if message.startswith("No such command") and "Did you mean" not in message
        else message
    )


def _fail(message: str, code: int) -> None:
    from crossroads.files.text import printable

    print(f"error: {printable(message)}", file=sys.stderr)
    sys.exit(code)
