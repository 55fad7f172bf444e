"""Serves what people look at: the page, the report of an artifact, and the documentation of the interface."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.responses import FileResponse, HTMLResponse

from crossroads.report.html.style import colours
from crossroads.serve.models import Models
from crossroads.serve.refusals import Refused
from crossroads.serve.settings import Settings

_OWN = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PAGE_POLICY = f"{_OWN}; script-src 'self'; img-src 'self' blob: data:; connect-src 'self'"
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""A report comes from an artifact, which may come from anyone. In a sandbox, its scripts cannot use this server."""

_ASSETS = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}

DOCS_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Crossroads: interface</title>
<link rel="icon" href="/static/icon.svg">
<link rel="stylesheet" href="/static/page.css">
</head>
<body class="docs">
<header><h1>Interface</h1><nav><a href="/">Page</a> <a href="/openapi.json">openapi.json</a></nav></header>
<main>
<section class="card">
<h2>Examples</h2>
<h3>curl</h3>
<pre tabindex="0" aria-label="Example for curl"><code>curl -F images=@photo.jpg "http://127.0.0.1:8000/v1/predict?top=3"
curl -F images=@one.jpg -F images=@two.jpg http://127.0.0.1:8000/v1/predict</code></pre>
<h3>Python</h3>
<pre tabindex="0" aria-label="Example for Python"><code>import requests

with open("photo.jpg", "rb") as file:
    answer = requests.post("http://127.0.0.1:8000/v1/predict", files={"images": file})
answer.raise_for_status()
print(answer.json()["predictions"][0]["labels"][0])</code></pre>
<h3>JavaScript</h3>
<pre tabindex="0" aria-label="Example for JavaScript"><code>const address = "http://127.0.0.1:8000/v1/predict?top=3";
const answer = await fetch(address, {method: "POST", body: file});
const {predictions, error} = await answer.json();</code></pre>
</section>
"""


def add_pages(app: FastAPI, models: Models, settings: Settings) -> None:
    """Adds the pages to the application."""

    async def page(_: Request) -> Response:
        text = _asset("page.html").replace("{max_body}", str(settings.max_body))
        return HTMLResponse(text, headers={"content-security-policy": PAGE_POLICY})

    async def static(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _ASSETS:
            raise Refused(404, "not-found", "there is nothing at this address")
        text = colours() + _asset(name) if name == "page.css" else _asset(name)
        return Response(text, media_type=_ASSETS[name])

    async def report(request: Request) -> Response:
        path = models.named(request.path_params["name"]).report
        if path is None:
            raise Refused(404, "no-report", "the artifact has no report", "write one with crossroads report")
        return FileResponse(path, media_type="text/html; charset=utf-8", headers={"content-security-policy": REPORT_POLICY})

    async def docs(_: Request) -> Response:
        return HTMLResponse(docs_page(app.openapi()), headers={"content-security-policy": f"{_OWN}; img-src 'self'"})

    app.add_route("/", page, include_in_schema=False)
    app.add_route("/static/{name}", static, include_in_schema=False)
    app.add_route("/report/{name}", report, include_in_schema=False)
    app.add_route("/docs", docs, include_in_schema=False)


@cache
def _asset(name: str) -> str:
    return files("crossroads.serve").joinpath("static", name).read_text(encoding="utf-8")


def docs_page(schema: dict[str, Any]) -> str:
    """Returns the documentation of the interface as HTML without scripts.

    Args:
        schema: The OpenAPI document.
    """
    operations = (
        _operation(path, method, operation) for path, methods in schema["paths"].items() for method, operation in methods.items()
    )
    return f"{DOCS_HEAD}{''.join(operations)}</main>\n</body>\n</html>\n"


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    description = "".join(f"<p>{escape(part)}</p>" for part in operation.get("description", "").split("\n\n"))
    return (
        f'<section class="card"><h2><span class="method">{escape(method.upper())}</span> {escape(path)}</h2>\n{description}'
        f"{_table('Parameters', _parameters(operation))}{_table('Body', _bodies(operation))}"
        f"{_table('Answers', _answers(operation))}</section>\n"
    )


def _table(title: str, rows: Iterator[tuple[str, str]]) -> str:
    lines = "".join(f"<tr><th scope=row><code>{escape(name)}</code></th><td>{escape(text)}</td></tr>" for name, text in rows)
    return f"<h3>{title}</h3><table>{lines}</table>" if lines else ""


def _parameters(operation: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for parameter in operation.get("parameters", ()):
        default = parameter["schema"].get("default")
        yield parameter["name"], parameter["description"] + ("" if default is None else f" Default: {default}.")


def _bodies(operation: dict[str, Any]) -> Iterator[tuple[str, str]]:
    body = operation.get("requestBody", {})
    for kind in body.get("content", ()):
        several = "maxItems" not in str(body) and kind.startswith("multipart")
        yield kind, "Any number of image files, in any fields." if several else "One image file."


def _answers(operation: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for status, answer in sorted(operation["responses"].items()):
        yield status, answer["description"]
