"""The command line. Each command reads its options, calls one function of the library, and shows what came back."""

from __future__ import annotations

import errno
import os
import re
import sys
from typing import Any

import typer

from crossroads._runtime.process import process_settings
from crossroads.cli import _advise, _fit, _networks, _use  # noqa: F401 - importing a module adds its commands
from crossroads.cli._app import INTERRUPTED, app
from crossroads.errors import CrossroadsError, RecipeError
from crossroads.report.streams import escape_standard_streams

__all__ = ["app", "main"]

_ORDER = ("audit", "advise", "fit", "evaluate", "predict", "backbones", "demo")
app.registered_commands.sort(key=lambda command: _ORDER.index(getattr(command.callback, "__name__", "")))

# Typer shows these itself, over several lines; here every mistake has one form.
UsageError: Any = typer.BadParameter.__base__


@process_settings()
def main() -> None:
    """Run the command line; a user's mistake is one line on the standard error stream and exit code 2."""
    escape_standard_streams()
    try:
        code = app(args=sys.argv[1:] or ["--help"], prog_name="crossroads", standalone_mode=False)
        if code == INTERRUPTED:  # what Typer makes of Ctrl-C
            _fail("stopped", code)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a reader that is gone is no traceback
        sys.exit(code)
    except RecipeError as error:
        _fail(str(_of_options(error)), error.exit_code)
    except CrossroadsError as error:
        _fail(str(error), error.exit_code)
    except UsageError as error:
        where = f"{error.ctx.command_path} --help" if error.ctx else "crossroads --help"
        _fail(f"{_said(error)}; see {where}", error.exit_code)
    except BrokenPipeError:
        # The reader of our output is gone, as in `| head`; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        _fail(f"{error.filename or 'a file'} must be writable; received {error.strerror}; make room or choose another place", 2)


def _of_options(error: RecipeError) -> RecipeError:
    """The error with the fields of a recipe as the options are written: ``--freeze-to``; one of a file of these stays."""
    from crossroads.recipe import OPTIONS, Recipe

    place, of_place, rest = error.rule.partition(": ")
    if of_place and place != OPTIONS:
        return error
    options = Recipe.__dataclass_fields__.keys() - {"data", "augmentation"}

    def option(found: re.Match[str]) -> str:
        return "--" + found[0].replace("_", "-") if found[0] in options else found[0]

    fields = r"\b[a-z]+(?:_[a-z]+)+\b|^[a-z]+(?= must | does | belongs )"
    rule, hint = (None if text is None else re.sub(fields, option, text) for text in (rest or error.rule, error.hint))
    return RecipeError(rule or "", received=error.received, hint=hint)


def _said(error: Any) -> str:
    """What Typer says is wrong; where a command is missing or unknown, with those that there are."""
    said: str = error.format_message().rstrip(".")
    commands = ", ".join(sorted(getattr(error.ctx and error.ctx.command, "commands", ())))
    if said == "Missing command":
        return f"{error.ctx.command_path} needs a command: {commands}"
    return f"{said}; there are {commands}" if said.startswith("No such command") and "Did you mean" not in said else said


def _fail(message: str, code: int) -> None:
    from crossroads.files.text import printable

    print(f"error: {printable(message)}", file=sys.stderr)
    sys.exit(code)
