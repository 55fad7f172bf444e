"""From a name and a recipe's words to a backbone with its weights, cut where it ends and where its frozen part ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossroads._runtime.keras_setup import load_keras
from crossroads.errors import BackboneError, RecipeError
from crossroads.networks.catalog import Backbone, Defaults, backbone

if TYPE_CHECKING:
    import keras

    from crossroads.networks.cuts import Cut
    from crossroads.networks.network import Parts

OWN = Defaults(batch_size=(32, 128), optimizer="adam", learning_rate=1e-3, schedule="constant", passes=400_000, epochs=(10, 20))
"""How a network of the user's own is trained from scratch."""

OBJECT = "own:"
"""What the name of a network begins with that was given as an object, which no recipe can hold."""

_OWN_SIZES = (32, 64, 96, 128, 160, 192, 224)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """A backbone of the catalog, or one of the user's own.

    Attributes:
        record: What is known of it.
        own: The user's network: a `keras.Model`, the path of a ``.keras`` file or ``package.module:function``; None for one of the
            catalog.
    """

    record: Backbone
    own: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class Built:
    """A backbone with its first weights.

    Attributes:
        parts: Preprocessing and the whole backbone; behind `keep` its weights may be random.
        keep: Where the user's cut is; where there is none, the end of the backbone, or of its weights.
        freeze: Up to where it is frozen while the rest is finetuned; None for nowhere.
        notes: What the user should know.
        weights: What was loaded, for the artifact; None for random weights.
        digest: Of the first weights, whatever they are.
        function: Digest of what is computed: preprocessing, layers and first weights.
    """

    parts: Parts
    keep: Cut
    freeze: Cut | None
    notes: tuple[str, ...]
    weights: dict[str, Any] | None
    digest: str
    function: str


def choose(named: Any) -> Choice:
    """The backbone that is named: a record of the catalog, a `keras.Model`, a ``.keras`` file or ``package.module:function``.

    Raises:
        BackboneError: No such backbone.
    """
    if isinstance(named, str) and named.startswith(OBJECT):
        raise BackboneError(
            "this run was started with a network that was given as an object",
            received=repr(named),
            hint="give the same network again, as backbone=…",
        )
    if isinstance(named, str) and not is_own(named):
        return Choice(backbone(named))
    name = named if isinstance(named, str) else object_name(named)
    sizes, limits = _sizes(named)
    record = Backbone(
        name=name,
        summary="a network of the user's own",
        builder="",
        sizes=sizes,
        limits=limits,
        scaling="none",
        licence="the user's",
        year=0,
        source="the user",
        defaults=OWN,
        parameters=0,
        multiply_adds=0,
        reference_size=sizes[-1],
    )
    return Choice(record, named)


def object_name(network: Any) -> str:
    """What the recipe calls a network that was given as an object."""
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
    """The backbone for square images of side `size` pixels. Loads Keras.

    Args:
        choice: What `choose` returned.
        size: Side of the images in pixels.
        weights: ``imagenet``, ``none``, ``own`` for those that the user's network brings, or the path of a file; None for random
            weights, new ones also for a network of the user's own.
        cut: Where the backbone is to end, as a user writes it; None for its end.
        freeze_to: Up to where it is frozen while the rest is finetuned; None for nowhere.
        seed: Decides random weights.
        progress: Called with a stage, bytes done and bytes in all while weights are downloaded.

    Raises:
        BackboneError: A size, cut or file of weights that does not fit.
    """
    from crossroads.networks.cuts import cuts, find
    from crossroads.networks.export import function_digest, weights_digest
    from crossroads.networks.network import seeded
    from crossroads.networks.weights import load_pretrained

    notes: list[str] = []
    end: Cut | None = None
    loaded: dict[str, Any] | None = None
    if weights == "own" and choice.own is None:
        raise BackboneError(
            "weights 'own' are those that a network of your own brings",
            received=f"backbone {choice.record.name!r} of the catalog",
            hint="use --weights imagenet, none, or the path of a file",
        )
    with seeded(seed):
        fresh = weights in (None, "none")
        parts = choice.record.build(size) if choice.own is None else _own_parts(choice, size, notes, fresh=fresh)
    if weights not in (None, "none", "own"):
        fitted = load_pretrained(parts, choice.record, str(weights), progress)
        loaded = {"from": weights if weights == "imagenet" else Path(str(weights)).name, "layers": fitted.layers}
        notes += fitted.notes
        if fitted.loaded_to is not None:
            end = find(parts.backbone, fitted.loaded_to)
            loaded["reach"] = end.name
            notes.append(
                f"the weights in {Path(str(weights)).name} reach {end.name}, {end.depth:.0%} of the depth of {choice.record.name}: "
                "the backbone ends there"
            )
    elif weights == "own":
        loaded = {"from": "own"}
    elif weights == "none":
        notes.append("the backbone has random weights, as --weights none asks")
    end = end or cuts(parts.backbone)[-1]
    keep = end if cut is None else _within(parts.backbone, cut, end)
    freeze = None if freeze_to is None else _within(parts.backbone, freeze_to, end)
    _require_below(freeze, keep)
    function = "-".join(function_digest(part) for part in (*parts.preprocessing, parts.backbone))
    return Built(parts, keep, freeze, tuple(notes), loaded, weights_digest(parts.backbone), function)


def _require_below(freeze: Cut | None, keep: Cut) -> None:
    """Raises `RecipeError` if nothing would be left to finetune between the frozen part and the end of the backbone."""
    if freeze is not None and (freeze.depth, freeze.multiply_adds) >= (keep.depth, keep.multiply_adds):
        raise RecipeError(
            "freeze_to must lie below the cut at which the backbone ends",
            received=f"{freeze.name!r}, and the backbone ends at {keep.name!r}",
            hint="choose an earlier one, or strategy feature-extraction, which freezes all",
        )


def _within(backbone: keras.Model, cut: str, end: Cut) -> Cut:
    """The cut that is meant, at or before where the weights end; a share of depth or a place from the end stops there.

    Raises:
        BackboneError: No such cut, or one behind the weights.
    """
    from crossroads.networks.cuts import find

    found = find(backbone, cut)
    if found.multiply_adds <= end.multiply_adds and found.parameters <= end.parameters:
        return found
    if ("." in cut and cut.replace(".", "", 1).isdigit()) or cut.startswith("-"):
        return end
    raise BackboneError(
        f"a cut must lie where there are weights, which end at {end.name!r}",
        received=repr(cut),
        hint=f"use {end.name!r} or an earlier one, or weights that go further",
    )


def is_own(named: str) -> bool:
    """Whether a name is that of a network of the user's own: a file or a function."""
    return named.endswith(".keras") or ":" in named


def _sizes(named: Any) -> tuple[tuple[int, ...], tuple[int, int]]:
    """The sizes that a network of the user's own takes: the one it was made for, or any."""
    load_keras()  # quietly, before a module that imports it
    from crossroads.networks.network import seeded
    from crossroads.networks.own import own_size

    with seeded(0):  # a function of the user's may draw random weights
        size = own_size(named)
    return ((size,), (size, size)) if size else (_OWN_SIZES, (8, 2048))


def _own_parts(choice: Choice, size: int, notes: list[str], *, fresh: bool) -> Parts:
    from crossroads.networks.own import own_backbone

    source = Path(choice.own) if isinstance(choice.own, str) and choice.own.endswith(".keras") else choice.own
    own = own_backbone(source, size)
    notes.extend(own.notes)
    return replace(own.parts, backbone=_copied(own.parts.backbone, fresh=fresh))


def _copied(backbone: keras.Model, *, fresh: bool) -> keras.Model:
    """The same layers with the same weights, or with new ones; the user's own network is never trained itself.

    New ones leave what was measured on data, such as the mean of a Normalization layer.
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
