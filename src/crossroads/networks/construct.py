"""Builds the backbone of a recipe: looks it up, loads its weights, and finds its cuts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossroads._runtime.keras_setup import load_keras
from crossroads.errors import BackboneError, RecipeError, option
from crossroads.networks._named import HUB, KERAS_HUB
from crossroads.networks.catalog import Backbone, Defaults, backbone
from crossroads.progress import Note

if TYPE_CHECKING:
    import keras

    from crossroads.networks.cuts import Cut
    from crossroads.networks.network import Parts

OWN = Defaults(batch_size=(32, 128), optimizer="adam", learning_rate=1e-3, schedule="constant", passes=400_000, epochs=(10, 20))
"""Defaults for training a custom network from scratch."""

OBJECT = "own:"
"""Prefix for the name of a network that was passed as an object, which a recipe cannot hold."""

GRAPH_SUFFIXES = (".onnx", ".tflite", ".xml")
"""Suffixes of files that OpenVINO reads."""

_OWN_SIZES = (32, 64, 96, 128, 160, 192, 224)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """A backbone of the catalog or a custom one.

    Attributes:
        record: Its record.
        own: The custom network: a `keras.Model`, the path of a ``.keras`` file, ``package.module:function`` or
            ``keras-hub:preset``; None for a backbone of the catalog.
        graph: The file of an inference graph, which stays frozen; None for other backbones.
        source: The name of this graph on the hub; None for a file of the user.
    """

    record: Backbone
    own: Any = None
    graph: Path | None = None
    source: str | None = None

    def graph_needs_keras(self, weights: str | None) -> bool:
        """Returns whether Keras makes the inference graph of this backbone with these weights, unless the cache has it."""
        return self.graph is None and not (weights == "imagenet" and self.record.graph is not None)


@dataclass(frozen=True, slots=True, eq=False)
class Built:
    """A backbone with its initial weights.

    Attributes:
        parts: Preprocessing and the whole backbone. Weights after `keep` may be random.
        keep: The cut of the recipe; by default the end of the backbone or of its pretrained weights.
        freeze: Last cut of the frozen part while the rest is finetuned; None if nothing is frozen.
        notes: Notes for the user.
        weights: Description of the loaded weights for the artifact; None for random weights.
        digest: Digest of the initial weights.
        function: Digest of preprocessing, layers and initial weights.
    """

    parts: Parts
    keep: Cut
    freeze: Cut | None
    notes: tuple[Note, ...]
    weights: dict[str, Any] | None
    digest: str
    function: str


def choose(named: Any, progress: Progress | None = None) -> Choice:
    """Looks up a backbone: a name of the catalog or of the hub, a model, a file, ``module:function`` or ``keras-hub:preset``.

    Args:
        named: The backbone.
        progress: Called with a stage, bytes done and total bytes while a graph from the hub is downloaded.

    Raises:
        BackboneError: The backbone does not exist.
    """
    if isinstance(named, str) and named.startswith(OBJECT):
        raise BackboneError(
            "this run was started with a network that was passed as an object",
            code="backbone-was-an-object",
            field="backbone",
            received=repr(named),
            hint="pass the same network again as backbone=…",
        )
    if isinstance(named, str) and named.startswith(KERAS_HUB):
        return _preset_choice(named)
    if isinstance(named, str) and is_graph(named):
        return _graph_choice(named, progress)
    if isinstance(named, str) and not is_own(named):
        return Choice(backbone(named))
    name = named if isinstance(named, str) else object_name(named)
    return Choice(_custom_record(name, "a custom network", *_sizes(named)), named)


def _graph_choice(named: str, progress: Progress | None) -> Choice:
    """Returns the choice of an inference graph in a file or on the hub."""
    from crossroads.networks.graphs import describe

    name = pinned(named)
    path = graph_file(name, progress)
    file = describe(path)
    beside = file.preprocessing
    size = file.input.size(None, None if beside is None else beside.size, path.name)
    limits = (file.input.smallest, file.input.largest or 2048)
    record = _custom_record(name, "a graph that stays frozen", (size,), limits, trainable=False)
    record = replace(record, licence=file.licence or "unknown", source=file.source or name)
    if beside is not None:
        record = replace(record, resize=beside.resize, crop_fraction=beside.crop_fraction, resample=beside.resample)
    return Choice(record, graph=path, source=name if name.startswith(HUB) else None)


def graph_file(named: str, progress: Progress | None = None) -> Path:
    """Returns the file of an inference graph, which is downloaded if it is on the hub and not in the hub's cache.

    Raises:
        CrossroadsError: The hub or the package for it is not available, or the hub has no such graph.
    """
    if not named.startswith(HUB):
        return Path(named).expanduser()
    from crossroads.networks.graphs import hub

    return hub.fetch(named, progress)


def pinned(named: str, note: Callable[[str], object] | None = None) -> str:
    """Returns a name that always means the same network: that of a network on the hub with its commit and file.

    Args:
        named: The name of a backbone.
        note: Called with a note if the hub does not answer and the revision in its cache is used.

    Raises:
        CrossroadsError: The hub or the package for it is not available, or the hub has no such graph.
    """
    if not named.startswith(HUB):
        return named
    from crossroads.networks.graphs import hub

    return hub.pin(named, note)


def _preset_choice(named: str) -> Choice:
    """Returns the choice of a preset of KerasHub."""
    load_keras()
    from crossroads.networks.keras_hub import preset_sizes

    return Choice(_custom_record(named, "a preset of KerasHub", *preset_sizes(named)), named)


def _custom_record(name: str, summary: str, sizes: tuple[int, ...], limits: tuple[int, int], *, trainable: bool = True) -> Backbone:
    return Backbone(
        name=name,
        summary=summary,
        builder="",
        sizes=sizes,
        limits=limits,
        scaling="none",
        licence="custom",
        year=0,
        source="custom",
        defaults=OWN,
        parameters=0,
        multiply_adds=0,
        reference_size=sizes[-1],
        trainable=trainable,
    )


def require_weights_of(choice: Choice, weights: str | None) -> None:
    """Raises `BackboneError` if a backbone of the catalog is to have the weights of a custom network."""
    if weights == "own" and choice.own is None:
        raise BackboneError(
            f"{option('weights')} own needs a custom network",
            code="own-weights-of-the-catalog",
            field="weights",
            received=f"backbone {choice.record.name!r} of the catalog",
            hint=f"use {option('weights')} imagenet, none or the path of a file",
        )


def object_name(network: Any) -> str:
    """Returns the name in a recipe for a network that was passed as an object."""
    return f"{OBJECT}{getattr(network, 'name', None) or getattr(network, '__name__', 'model')}"


def build(
    choice: Choice,
    size: int,
    *,
    weights: str | None,
    cut: str | None = None,
    freeze_to: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Built:
    """Builds a backbone for square images of side `size` pixels. Loads Keras.

    Args:
        choice: Result of `choose`.
        size: Side of the images in pixels.
        weights: ``imagenet``, ``none``, ``own`` for those of a custom network, or the path of a file; None for random weights, also
            in a custom network.
        cut: Last cut to keep, as in a recipe; None for the whole backbone.
        freeze_to: Last cut of the frozen part while the rest is finetuned; None for no frozen part.
        seed: Seed of random weights.
        progress: Called with a stage, bytes done and total bytes while weights are downloaded.

    Raises:
        BackboneError: A size, cut or file of weights does not fit.
    """
    from crossroads.networks.body import within
    from crossroads.networks.cuts import cuts, find
    from crossroads.networks.export import function_digest, weights_digest
    from crossroads.networks.network import seeded
    from crossroads.networks.weights.pretrained import load_pretrained

    notes: list[Note] = []
    end: Cut | None = None
    loaded: dict[str, Any] | None = None
    require_weights_of(choice, weights)
    if choice.own is None:
        with seeded(seed):
            parts = choice.record.build(size)
    else:
        parts = _own_parts(choice, size, notes, fresh=weights in (None, "none"), seed=seed)
    if weights not in (None, "none", "own"):
        fitted = load_pretrained(parts, choice.record, str(weights), progress)
        loaded = {"from": weights if weights == "imagenet" else Path(str(weights)).name, "layers": fitted.layers}
        notes += fitted.notes
        if fitted.loaded_to is not None:
            end = find(parts.backbone, fitted.loaded_to)
            loaded["reach"] = end.name
            text = (
                f"the weights in {Path(str(weights)).name} end at {end.name}, {end.depth:.0%} of the depth of "
                f"{choice.record.name}; the backbone is cut there"
            )
            notes.append(Note(text, "weights-end-early", cut=end.name, depth=round(end.depth, 4)))
    elif weights == "own":
        loaded = {"from": "own"}
    elif weights == "none":
        notes.append(Note("the backbone has random weights because `weights` is none", "random-weights"))
    end = end or cuts(parts.backbone)[-1]
    keep = end if cut is None else within(find(parts.backbone, cut), cut, end)
    freeze = None if freeze_to is None else within(find(parts.backbone, freeze_to), freeze_to, end)
    _require_below(freeze, keep)
    function = "-".join(function_digest(part) for part in (*parts.preprocessing, parts.backbone))
    return Built(parts, keep, freeze, tuple(notes), loaded, weights_digest(parts.backbone), function)


def _require_below(freeze: Cut | None, keep: Cut) -> None:
    """Raises `RecipeError` if nothing would be left to finetune between the frozen part and the end of the backbone."""
    if freeze is not None and (freeze.depth, freeze.multiply_adds) >= (keep.depth, keep.multiply_adds):
        raise RecipeError(
            f"{option('freeze_to')} must be below the end of the backbone",
            code="nothing-left-to-finetune",
            field="freeze_to",
            received=f"{freeze.name!r}, and the backbone ends at {keep.name!r}",
            hint=f"choose an earlier cut, or {option('strategy')} feature-extraction, which freezes everything",
        )


def is_own(named: str) -> bool:
    """Returns whether a name refers to a custom network: a file, a function or a preset of KerasHub."""
    return named.endswith(".keras") or ":" in named


def is_graph(named: str) -> bool:
    """Returns whether a name is the path of an inference graph, or a network on the hub."""
    if named.startswith(KERAS_HUB):
        return False
    return named.startswith(HUB) or Path(named).suffix.lower() in GRAPH_SUFFIXES


def _sizes(named: Any) -> tuple[tuple[int, ...], tuple[int, int]]:
    """Returns the default sizes and the limits of a custom network: the one size it was built for, or all sizes."""
    load_keras()  # before the user's module imports Keras with all its start-up notices
    from crossroads.networks.own import own_size

    size = own_size(named)
    return ((size,), (size, size)) if size else (_OWN_SIZES, (8, 2048))


def _own_parts(choice: Choice, size: int, notes: list[Note], *, fresh: bool, seed: int) -> Parts:
    from crossroads.networks.network import seeded
    from crossroads.networks.own import own_network

    own = own_network(choice.own, size, seed)
    notes.extend(own.notes)
    with seeded(seed):
        return replace(own.parts, backbone=_copied(own.parts.backbone, fresh=fresh))


def _copied(backbone: keras.Model, *, fresh: bool) -> keras.Model:
    """Returns a copy with the same weights, or with new ones, so that a custom network itself is never trained.

    Normalization layers always keep their statistics: they describe the data and cannot be drawn at random.
    """
    import keras

    copy = keras.models.clone_model(backbone)
    if not fresh:
        copy.set_weights(backbone.get_weights())
    for before, after in zip(backbone.layers, copy.layers, strict=True):
        if isinstance(before, keras.layers.Normalization) and before.weights:
            after.set_weights(before.get_weights())
            after.finalize_state()
    return copy
