"""Looks for further views in a JPEG file of several pictures (MPO, CIPA DC-007)."""

from __future__ import annotations

import io

from PIL import JpegImagePlugin, MpoImagePlugin

_ENTRIES = 0xB002


def has_views(image: object, raw: bytes) -> bool:
    """Returns whether a JPEG file holds further views of its scene: the other eye, other angles, parts of a panorama.

    Previews and gain maps, which many phones append, do not count.
    """
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or "mp" not in image.info:
        return False
    try:
        entries = (MpoImagePlugin.MpoImageFile(io.BytesIO(raw)).mpinfo or {}).get(_ENTRIES, ())
        return any(str(entry["Attribute"]["MPType"]).startswith("Multi-Frame") for entry in entries[1:])
    except Exception:  # a damaged index: any of a dozen kinds, and the first picture is still good
        return False
