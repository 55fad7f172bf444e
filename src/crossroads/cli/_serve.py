"""Defines the command serve."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from crossroads.cli._app import PlainCommand, app

TOKEN = "CROSSROADS_TOKEN"


@app.command(cls=PlainCommand)
def serve(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]RUN", help="Artifacts: folders that `fit` wrote, each with an optional name.", show_default=False
        ),
    ],
    host: Annotated[
        str, typer.Option(metavar="NAME", help="Address to listen on. 0.0.0.0 means all of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="INTEGER", min=0, max=65535, help="Port to listen on; 0 for any free one.")] = 8000,
    token_file: Annotated[
        Optional[Path],
        typer.Option(
            metavar="PATH", help=f"A file with the token that requests must present. [default: ${TOKEN}]", show_default=False
        ),
    ] = None,
    allow_origin: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="URL", help="A web site whose pages may use the server. May be given several times.", show_default=False
        ),
    ] = None,
    max_body: Annotated[int, typer.Option(metavar="INTEGER", min=1, help="Largest body of a request, in MB.")] = 32,
    max_files: Annotated[int, typer.Option(metavar="INTEGER", min=1, help="Largest number of images in a request.")] = 64,
    max_pixels: Annotated[int, typer.Option(metavar="INTEGER", min=1, help="Largest image, in megapixels.")] = 50,
    max_waiting: Annotated[
        int, typer.Option(metavar="INTEGER", min=1, help="Images that may wait for an answer; more get status 503.")
    ] = 128,
) -> None:
    """Serve artifacts: a page and an HTTP interface.

    A new artifact in a folder is served as soon as it is complete. Ctrl-C or SIGTERM stops the server after it has answered the
    requests that it accepted.

    \b
    Example:
      crossroads serve runs/photos
      crossroads serve photos=runs/photos digits=runs/digits --port 9000
    """
    from crossroads.errors import missing_extra

    try:
        from crossroads.serve.models import parse_models
        from crossroads.serve.server import run
        from crossroads.serve.settings import Settings
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "crossroads":
            raise
        raise missing_extra("serve", str(error.name), "serve") from error
    settings = Settings(
        token=_token(token_file),
        origins=tuple(allow_origin or ()),
        max_body=max_body * 2**20,
        max_files=max_files,
        max_pixels=max_pixels * 1_000_000,
        max_waiting=max_waiting,
    )
    log = logging.getLogger("crossroads.serve")
    log.setLevel(logging.INFO)
    log.addHandler(logging.StreamHandler(sys.stderr))
    run(parse_models(runs), host=host, port=port, settings=settings)


def _token(file: Path | None) -> str | None:
    """Returns the token from a file or the environment. It is never an argument, which every user of the machine could read.

    Raises:
        RecipeError: The file cannot be read, or the token is empty or not ASCII without spaces.
    """
    from crossroads.errors import RecipeError, option

    if file is not None:
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise RecipeError(
                f"{option('token_file')} must be a readable text file",
                code="unreadable-token",
                field="token_file",
                received=getattr(error, "strerror", None) or "bytes that are not text",
            ) from error
    elif TOKEN in os.environ:
        token = os.environ[TOKEN].strip()
    else:
        return None
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise RecipeError(
            "the token must consist of printable ASCII characters without spaces",
            code="invalid-token",
            field="token_file",
            hint="make one with: python -c 'import secrets; print(secrets.token_urlsafe())'",
        )
    return token
