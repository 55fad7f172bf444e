"""The commands about networks: which there are, where their weights lie, what of their features is cached."""

from __future__ import annotations

from crossroads.cli._app import Json, app


@app.command()
def backbones(json: Json = False) -> None:
    """List the networks that can be trained.

    \b
    Example:
      crossroads backbones
    """
    from crossroads.networks.catalog import CATALOG
    from crossroads.report.console import print_json, print_table

    if json:
        print_json([record.to_json() for record in CATALOG])
        return
    header = ("name", "year", "image sizes", "preprocessing", "summary")
    print_table(header, ((b.name, b.year, "/".join(map(str, b.sizes)), b.preprocessing, b.summary) for b in CATALOG))
