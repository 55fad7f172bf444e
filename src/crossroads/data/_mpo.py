"""Detects JPEG files that hold several views of one scene (multi-picture format, MPO, CIPA DC-007)."""

from __future__ import annotations

import io

from PIL import JpegImagePlugin, MpoImagePlugin

_ENTRIES = 0xB002


def has_views(image: object, raw: bytes) -> bool:
    """Returns whether a JPEG file holds more than one view of its scene, such as a stereo pair or the parts of a panorama.

    Many phones append previews and gain maps. These do not count as views.
    """
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or "mp" not in image.info:
        return False
    try:
        entries = (MpoImagePlugin.MpoImageFile(io.BytesIO(raw)).mpinfo or {}).get(_ENTRIES, ())
        return any(str(entry["Attribute"]["MPType"]).startswith("Multi-Frame") for entry in entries[1:])
    except Exception:  # Pillow raises many kinds of error for a damaged index; the first picture is still readable
        return False
