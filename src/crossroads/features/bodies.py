"""Finds the inference graph of a backbone: in the cache, or made by Keras once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from crossroads import networks
from crossroads._runtime.keras_setup import LOADING, load_keras
from crossroads.errors import ArtifactError
from crossroads.features.cache import Cache
from crossroads.features.store import unwritable
from crossroads.inference import stored_model
from crossroads.networks._once import key_of, once
from crossroads.networks.body import Body, Tap
from crossroads.networks.construct import Choice, Progress, build, require_weights_of
from crossroads.networks.cut import Cut
from crossroads.networks.graphs import Stated, read_graph
from crossroads.networks.records import Backbone
from crossroads.networks.weights.store import identify, obtain, require_imagenet
from crossroads.progress import Note, stage
from crossroads.recipe import PoolingName

if TYPE_CHECKING:
    import keras

    from crossroads.networks.construct import Built

LOGGER = logging.getLogger(__name__)

_GRAPH, _FACTS = "body.xml", "body.json"


def body_of(
    choice: Choice,
    size: int,
    weights: str | None,
    seed: int = 0,
    progress: Progress | None = None,
    stated: Stated | None = None,
) -> Body:
    """Returns the inference graph of a backbone with its weights. Keras is loaded only if the cache does not have it.

    Args:
        choice: The backbone.
        size: Side of the images in pixels.
        weights: ``imagenet``, ``none``, ``own`` or the path of a file, as in a recipe; None for random weights.
        seed: Seed of random weights.
        progress: Called with a stage, bytes done and total bytes while weights are downloaded.
        stated: What the user states about a graph from a file; None for nothing.

    Raises:
        CrossroadsError: A size or file of weights does not fit, or the network does not convert to a graph.
    """
    choice.record.check_size(size)
    with stage(progress, f"building {choice.record.name}"):
        return _body_of(choice, size, weights, seed, progress, stated or Stated())


def _body_of(choice: Choice, size: int, weights: str | None, seed: int, progress: Progress | None, stated: Stated) -> Body:
    if choice.graph is not None:
        source = stated.source or choice.source
        return read_graph(choice.graph, size=size, preprocessing=stated.preprocessing, licence=stated.licence, source=source)
    require_weights_of(choice, weights)
    if not choice.graph_needs_keras(weights):
        return _built_here(choice.record, size, progress)
    make = partial(_built, choice, size, weights, seed, progress)
    if choice.own is not None:
        known = ("body", key_of(choice.own), str(Cache().graphs), size, weights, seed)
        body = once(known, lambda: _of_custom(make, choice.record.name, size))
        return replace(body, keras_part=_keras_part(size, make))
    notes: list[Note] = []
    digest = identify(choice.record, weights, progress, notes.append)
    named = weights if weights in (None, "none", "imagenet") else Path(str(weights)).name
    body = _kept(_key([choice.record.name, size, named, digest or seed]), make, choice.record.name, size)
    return replace(body, notes=(*notes, *body.notes), keras_part=_keras_part(size, make))


def _of_custom(make: Callable[[], Built], name: str, size: int) -> Body:
    """Returns the graph of a custom network, which only its layers and weights identify."""
    built = make()
    return _kept(built.function, lambda: built, name, size)


def _kept(key: str, make: Callable[[], Built], name: str, size: int) -> Body:
    """Returns the graph with this key from the cache, or makes it."""
    folder = Cache().graphs / key
    body = _read(folder, name, size)
    if body is None:
        body = _made(make(), name, size, folder)
    with contextlib.suppress(OSError):  # the cache may be read-only
        os.utime(folder)  # marks it as used
    return body


def _built_here(record: Backbone, size: int, progress: Progress | None) -> Body:
    """Builds the graph of a backbone with ImageNet weights without Keras."""
    model, taps = record.build_graph(size, obtain(record, progress=progress))
    source = require_imagenet(record)
    digest = _key([record.name, size, source.digest])
    weights = {"from": "imagenet", "digest": source.digest}
    keras_part = _keras_part(size, partial(_built, Choice(record), size, "imagenet", 0, None))
    return Body(record.name, size, model, taps, taps[-1].cut, digest, depthwise=True, weights=weights, keras_part=keras_part)


def _built(choice: Choice, size: int, weights: str | None, seed: int, progress: Progress | None) -> Built:
    with stage(progress, LOADING):
        load_keras()
    return build(choice, size, weights=weights, seed=seed, progress=progress)


def _key(facts: list[Any]) -> str:
    """Returns a digest of all that decides the graph of a backbone of the catalog: these facts, the libraries and the builders."""
    libraries = {each: _version(each) for each in ("keras", "tensorflow", "tensorflow-cpu", "jax", "openvino")}
    return hashlib.blake2b(json.dumps([facts, libraries, _digest_of_code()], sort_keys=True).encode(), digest_size=32).hexdigest()


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


@cache
def _digest_of_code() -> str:
    """Returns a digest of the modules that build networks, so that a change in their code leads to a new graph."""
    hasher = hashlib.blake2b(digest_size=16)
    for path in sorted(Path(networks.__path__[0]).rglob("*.py")):
        hasher.update(path.read_bytes())
    return hasher.hexdigest()


def _read(folder: Path, name: str, size: int) -> Body | None:
    """Returns the body in a folder; None if there is none, or if it cannot be read."""
    if not (folder / _FACTS).is_file():
        return None
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        taps = tuple(_tap_from(values) for values in facts["taps"])
        model = stored_model(folder / _GRAPH)
        if len(model.outputs) != len(taps):
            raise ValueError(f"{len(model.outputs)} outputs for {len(taps)} cuts")
        end = next(tap.cut for tap in taps if tap.cut.name == facts["end"])
        notes = tuple(Note(note["text"], note["code"], **note["figures"]) for note in facts["notes"])
        return Body(name, size, model, taps, end, facts["digest"], facts["depthwise"], weights=facts["weights"], notes=notes)
    except (ArtifactError, OSError, ValueError, KeyError, TypeError, StopIteration):
        LOGGER.warning("a cached inference graph cannot be used and is replaced", exc_info=True)
        return None


def _made(built: Built, name: str, size: int, folder: Path) -> Body:
    """Makes the graph of a backbone and moves it into its folder, atomically. The graph of a faster process stays."""
    from crossroads.networks.cost import has_depthwise
    from crossroads.networks.keras_body import require_agreement, write_body

    refused = _identity(folder / _FACTS)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = TemporaryDirectory(dir=folder.parent, prefix=".partial-", ignore_cleanup_errors=True)
    except OSError as error:
        raise unwritable(folder.parent, error) from error
    with temporary:
        made = Path(temporary.name) / "made"
        made.mkdir()
        taps = write_body(built, size, made / _GRAPH)
        facts = {
            "end": built.keep.name,
            "digest": built.function,
            "depthwise": has_depthwise(built.parts.backbone),
            "weights": None if built.weights is None else built.weights | {"digest": built.digest},
            "notes": [_note_values(note) for note in built.notes],
            "taps": [asdict(tap) for tap in taps],
        }
        (made / _FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8")
        body = _read(made, name, size)
        if body is None:
            raise ArtifactError(
                "the inference graph of a backbone must be readable",
                code="not-a-graph",
                field="backbone",
                received=name,
                hint="report this with your network and the OpenVINO version",
            )
        require_agreement(body, built.parts)
        if _identity(folder / _FACTS) in (None, refused):
            try:
                if folder.exists():
                    folder.rename(made.with_name("refused"))
                made.rename(folder)
            except OSError as error:
                if not (folder / _FACTS).exists():
                    raise unwritable(folder, error) from error
        return body


def _identity(path: Path) -> tuple[int, int] | None:
    """Distinguishes the file at `path` from one that replaces it; None if there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _note_values(note: Note) -> dict[str, Any]:
    return {"text": str(note), "code": note.code, "figures": note.figures}


def _tap_from(values: dict[str, Any]) -> Tap:
    cut = values["cut"]
    return Tap(Cut(**{**cut, "shape": tuple(cut["shape"])}), values["layout"], values["prefix"])


def _keras_part(size: int, make: Callable[[], Built]) -> Callable[[Cut, PoolingName | None], keras.Model]:
    """Returns a function that builds, in Keras, the part of the backbone up to a cut."""

    def part(cut: Cut, pooling: PoolingName | None) -> keras.Model:
        from crossroads.networks.cuts import find
        from crossroads.networks.network import frozen_part

        parts = make().parts
        return frozen_part(parts, size, find(parts.backbone, cut.name), pooling)

    return part
