"""The command line. Each command reads its options, calls one function of the library, and shows what came back."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import typer

from crossroads.cli import _advise, _fit, _networks, _use  # noqa: F401 - importing a module adds its commands
from crossroads.cli._app import app
from crossroads.errors import CrossroadsError

__all__ = ["app", "main"]

_ORDER = ("audit", "advise", "fit", "evaluate", "predict", "backbones", "demo")
app.registered_commands.sort(key=lambda command: _ORDER.index(getattr(command.callback, "__name__", "")))

# Typer shows these itself, over several lines; here every mistake has one form.
INTERRUPTED = 130
UsageError: Any = typer.BadParameter.__base__


def main() -> None:
    """Run the command line; a user's mistake is one line on the standard error stream and exit code 2."""
    try:
        code = app(args=sys.argv[1:] or ["--help"], prog_name="crossroads", standalone_mode=False)
        if code == INTERRUPTED:  # what Typer makes of Ctrl-C
            fits = sys.argv[1:2] == ["fit"]
            _fail("stopped; if an epoch was finished, the run goes on with --resume" if fits else "stopped", code)
        sys.exit(code)
    except CrossroadsError as error:
        _fail(str(error), error.exit_code)
    except UsageError as error:
        where = f"{error.ctx.command_path} --help" if error.ctx else "crossroads --help"
        _fail(f"{error.format_message().rstrip('.')}; see {where}", error.exit_code)
    except BrokenPipeError:
        # The reader of our output is gone, as in `| head`; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        _fail(f"{error.filename or 'a file'} must be writable; received {error.strerror}; make room or choose another place", 2)


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
