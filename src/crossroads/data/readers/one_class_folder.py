"""A single class folder. A folder of pictures may also be beside other data, so all other layouts are tried first."""

from __future__ import annotations

from crossroads.data.readers._folder_refusals import refuse_other_than_classes
from crossroads.data.readers._listing import Listing
from crossroads.data.readers.class_folders import read

__all__ = ["LAYOUT", "read", "recognises"]

LAYOUT = "<class>/<image>, a single class"


def recognises(listing: Listing) -> bool:
    """Returns whether a folder holds images directly.

    Raises:
        DataError: It is no class, or it fits another reading as well.
    """
    if listing.single or not any(branch.direct for branch in listing.branches.values()):
        return False
    refuse_other_than_classes(listing)
    return True
