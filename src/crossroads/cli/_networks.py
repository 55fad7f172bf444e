"""Defines the commands about networks, their weights and their cached features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from crossroads.cli._app import Json, PlainCommand, app, watching

if TYPE_CHECKING:
    from crossroads.networks.construct import Choice
    from crossroads.networks.cut import Cut
    from crossroads.networks.records import Backbone

weights_app = typer.Typer(help="Manage the ImageNet weights in the cache of Keras.", rich_markup_mode=None)
cache_app = typer.Typer(help="Manage the cached features of frozen networks.", rich_markup_mode=None)
app.add_typer(weights_app, name="weights")
app.add_typer(cache_app, name="cache")


@app.command(cls=PlainCommand)
def backbones(
    name: Annotated[
        Optional[str], typer.Argument(metavar="NAME", help="Name of a backbone, to list its cuts.", show_default=False)
    ] = None,
    image_size: Annotated[
        Optional[int],
        typer.Option(
            metavar="N",
            help="Side of the images in pixels, on which the shapes and costs of the cuts depend.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List the backbones, or the cuts of one backbone.

    \b
    Example:
      crossroads backbones
      crossroads backbones mobilenet
    """
    from crossroads.errors import without_effect
    from crossroads.networks.catalog import CATALOG
    from crossroads.report.console import print_json, print_table
    from crossroads.report.page import Column

    if name is not None:
        _show_cuts(name, image_size, json)
        return
    if image_size is not None:
        raise without_effect("image_size", image_size, "on the list of all backbones", hint="name a backbone")
    if json:
        print_json([record.to_json() for record in CATALOG])
        return
    header = (
        *("name", Column("year", 2), Column("image sizes", 3), "parameters", Column("multiply-adds", 1), "weights"),
        Column("licence", 4),
    )
    print_table(header, (_row(record) for record in CATALOG))


def _row(record: Backbone) -> tuple[object, ...]:
    sizes = "/".join(map(str, record.sizes))
    costs = _count(record.parameters), _count(record.multiply_adds)
    return (record.name, record.year, sizes, *costs, _weights_of(record), record.licence)


def _weights_of(record: Backbone) -> str:
    from crossroads.networks.weights.installed import installed_file

    if record.pretrained is None:
        return "none"
    if installed_file(record.pretrained) is not None:
        return "imagenet, installed"
    return "imagenet" if record.pretrained.verified else "imagenet, unverified"


def _show_cuts(name: str, image_size: int | None, json: bool) -> None:
    """Prints the record of one backbone, and its cuts at one image size."""
    from crossroads.data.images import FILTER
    from crossroads.networks.construct import choose
    from crossroads.networks.graphs import describe
    from crossroads.networks.weights.installed import installed_file
    from crossroads.report.console import print_json, print_lines, print_table

    with watching(json=True, quiet=False) as watcher:  # on standard error
        choice = choose(name, watcher.progress)
    record, size = choice.record, choice.record.reference_size if image_size is None else image_size
    record.check_size(size)
    known = _cuts(choice, size)
    if json:
        listed = [
            {
                "index": cut.index,
                "name": cut.name,
                "depth": cut.depth,
                "shape": list(cut.shape),
                "multiply_adds": cut.multiply_adds,
                "parameters": cut.parameters,
            }
            for cut in known
        ]
        print_json(record.to_json() | {"image_size": size, "cuts": listed})
        return
    lines: list[tuple[str, object]] = [
        ("backbone", record.name),
        ("summary", record.summary),
        ("image_size", f"{size} px (takes {record.limits[0]} to {record.limits[1]})"),
        ("preprocessing", record.preprocessing if choice.graph is None else describe(choice.graph).expects),
        ("licence", record.licence),
        ("source", record.source),
    ]
    if record.resize is not None:
        fraction = 1.0 if record.crop_fraction is None else record.crop_fraction
        lines.insert(4, ("resize", f"{record.resize}, crop_fraction {fraction:g}, {record.resample or FILTER}"))
    if record.pretrained is not None:
        state = " (installed)" if installed_file(record.pretrained) is not None else ""
        lines.append(("imagenet_weights", f"{record.pretrained.address}{state}"))
        lines.append(("imagenet_digest", record.pretrained.digest or "none published, so downloads are not verified"))
    print_lines(lines)
    print()
    header = ("index", "cut", "depth", "channels", "side", "multiply-adds", "parameters")
    print_table(
        header,
        ((c.index, c.name, f"{c.depth:.2f}", c.channels, _side(c), _count(c.multiply_adds), _count(c.parameters)) for c in known),
    )


def _side(cut: Cut) -> int | str:
    return cut.shape[0] if len(cut.shape) == 3 else "-"


def _cuts(choice: Choice, size: int) -> tuple[Cut, ...]:
    from crossroads._runtime.keras_setup import load_keras
    from crossroads.networks.graphs import cuts_of_graph

    if choice.graph is not None:
        return cuts_of_graph(choice.graph, size)
    load_keras()
    from crossroads.networks.construct import build
    from crossroads.networks.cuts import cuts

    return cuts(build(choice, size, weights="own" if choice.own is not None else None).parts.backbone)


@weights_app.command("list", cls=PlainCommand)
def weights_list(json: Json = False) -> None:
    """List the files of ImageNet weights, with the address of each and whether it is installed or cached.

    \b
    Example:
      crossroads weights list
    """
    from crossroads.networks.weights.store import describe
    from crossroads.report.console import print_json, print_table

    rows = describe()
    if json:
        keys = ("backbones", "file", "address", "digest", "licence", "package", "installed", "size")
        print_json([{key: getattr(row, key) for key in keys} | {"path": str(row.path)} for row in rows])
        return
    print_table(
        ("file", "cached", "digest", "backbones", "address without the file name"),
        (
            (
                r.file,
                "-" if r.size is None else "installed" if r.installed else _megabytes(r.size),
                "none" if r.digest is None else r.digest.partition(":")[0],
                ", ".join(r.backbones),
                r.address.removesuffix(r.file),
            )
            for r in rows
        ),
    )


@weights_app.command("add", cls=PlainCommand)
def weights_add(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file from `crossroads weights list`.", show_default=False)],
) -> None:
    """Copy a file of ImageNet weights into the cache. `--weights imagenet` then works offline.

    \b
    Example:
      crossroads weights add mobilenet_1_0_224_tf_no_top.h5
    """
    from crossroads.networks.weights.store import add

    print(f"added: {add(file)}")


@cache_app.command("info", cls=PlainCommand)
def cache_info(json: Json = False) -> None:
    """Show the cached features and their size.

    \b
    Example:
      crossroads cache info
    """
    from crossroads.features.cache import GRAPH, Cache
    from crossroads.report.console import print_json, print_lines, print_table

    cache = Cache()
    rows = cache.info()
    total = sum(row.bytes for row in rows)
    if json:
        stores = [row.to_json() for row in rows]
        print_json({"folder": str(cache.folder), "limit": cache.limit, "bytes": total, "stores": stores})
        return
    print_lines([("folder", cache.folder), ("size", f"{_megabytes(total)} of {_megabytes(cache.limit)}"), ("stores", len(rows))])
    if rows:
        graphs, features = [row for row in rows if row.name == GRAPH], [row for row in rows if row.name != GRAPH]
        lines = [(_shortened(row.name), f"{row.rows:,}", _megabytes(row.bytes), row.used) for row in features]
        if graphs:
            lines.append((f"graphs, {len(graphs)}", "-", _megabytes(sum(row.bytes for row in graphs)), graphs[0].used))
        print()
        print_table(("features", "images", "size", "last used"), lines)


@cache_app.command("clear", cls=PlainCommand)
def cache_clear() -> None:
    """Remove all cached features. Runs that need them compute them again.

    \b
    Example:
      crossroads cache clear
    """
    from crossroads.features.cache import Cache

    print(f"removed: {_megabytes(Cache().clear())}")


def _shortened(name: str, most: int = 60) -> str:
    """Returns the name of features, without the middle of a long list of cuts."""
    return name if len(name) <= most else f"{name[: most - 22]} … {name[-19:]}"


def _count(number: int) -> str:
    """Formats a count in thousands, millions or billions."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g} {letter}"
    return str(number)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
