"""Which top folders are splits: by their names, by the names beside them, and by what lies in them."""

from __future__ import annotations

from crossroads.data.dataset import SPLITS
from crossroads.data.labels import class_name
from crossroads.data.readers._folder_names import beside_split, is_holder, is_plain_split, is_usual_split, split_in, words_of
from crossroads.data.readers._listing import View
from crossroads.errors import DataError


def split_tops(view: View) -> dict[str, int]:
    """The top folders that are named as splits, with their splits.

    ``train``, ``Train Data`` and ``imgs_train`` say nothing but the split. ``seg_train`` says more, and counts where a folder of
    another split says the same (``seg_test``), or holds folders of the same names. So a class may be called `train station`.
    """
    if "splits" not in view.memo:
        spoken = {top: split for top in view.branches if (split := split_in(top)) is not None}
        view.memo["splits"] = {top: split for top, split in spoken.items() if is_plain_split(top) or _has_twin(view, top, spoken)}
    found: dict[str, int] = view.memo["splits"]
    return found


def _has_twin(view: View, top: str, spoken: dict[str, int]) -> bool:
    """Whether a folder of another split has the same words beside the split's, or class folders of the same names."""
    classes = _classes(view, top)
    for other, split in spoken.items():
        if split == spoken[top]:
            continue
        common = classes & _classes(view, other)
        if beside_split(other) == beside_split(top) or (
            len(common) > 1 and 2 * len(common) > min(len(classes), len(_classes(view, other)))
        ):
            return True
    return False


def _classes(view: View, top: str) -> set[str]:
    return set(map(class_name, opened(view, top).branches))


def opened(view: View, top: str) -> View:
    """What lies in a split folder, without folders that only wrap it, as in ``seg_train/seg_train/`` and ``val/images/``."""
    inner, around = view.inside(top), top
    while len(inner.branches) == 1 and not inner.loose:
        (name,) = inner.branches
        if not (words_of(name) == words_of(around) or is_holder(name) or _same_split(name, top)):
            break
        inner, around = inner.inside(name), name
    return inner


def _same_split(name: str, top: str) -> bool:
    return is_plain_split(name) and split_in(name) == split_in(top)


def has_classes_in_splits(view: View) -> bool:
    """Whether top folders named after splits hold class folders; a class may be called `train` too, but holds images itself.

    Raises:
        DataError: One of several folders is named after a split, and all of them hold folders, so that it may be a class as well.
    """
    if view.single:
        return False
    splits = split_tops(view)
    labelled = [top for top in splits if opened(view, top).branches]
    if len(view.branches) == 1 and not is_usual_split(*view.branches):
        return False  # a wrapping folder, such as `training_data` with the classes or the splits in it
    others = {top: branch for top, branch in view.branches.items() if top not in splits}
    if not labelled or not others or len(set(splits.values())) > 1:
        return bool(labelled)
    (top, *_) = labelled
    inner = _classes(view, top)
    if any(len(inner & set(map(class_name, branch.inside))) > 1 for branch in others.values()):
        return True
    if all(branch.direct for branch in others.values()):
        return len(others) == 1 and len(inner) > 1
    raise two_readings(
        view,
        f"{top}/ is the split {SPLITS[splits[top]]} and the folders in it are the classes",
        f"{', '.join(list(view.branches)[:4])} are the classes",
        f"give {view.full(top)} alone, or rename it if it is a class",
    )


class AmbiguousLayout(DataError):
    """The refusal of a layout that can be read in two ways."""


def two_readings(view: View, one: str, other: str, hint: str) -> AmbiguousLayout:
    """The refusal of a layout that can be read in two ways."""
    return AmbiguousLayout(f"the layout of {view.origin} is ambiguous: {one}; or {other}", hint=hint)
