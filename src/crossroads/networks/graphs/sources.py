"""Finds the licence and the source of a graph in the files beside it."""

from __future__ import annotations

import re
from pathlib import Path

from crossroads.networks.graphs.preprocessing import folders_of
from crossroads.progress import Note

_FIRST_LINES = (
    (r"apache license\s+version 2\.0", "Apache-2.0"),
    (r"gnu affero general public license\s+version 3", "AGPL-3.0-only"),
    (r"gnu lesser general public license\s+version 3", "LGPL-3.0-only"),
    (r"gnu general public license\s+version 3", "GPL-3.0-only"),
    (r"gnu general public license\s+version 2", "GPL-2.0-only"),
    (r"mozilla public license,? version 2\.0", "MPL-2.0"),
    (r"attribution-noncommercial-sharealike 4\.0 international", "CC-BY-NC-SA-4.0"),
    (r"attribution-noncommercial 4\.0 international", "CC-BY-NC-4.0"),
    (r"attribution-sharealike 4\.0 international", "CC-BY-SA-4.0"),
    (r"attribution 4\.0 international", "CC-BY-4.0"),
    (r"cc0 1\.0 universal", "CC0-1.0"),
    (r"this is free and unencumbered software released into the public domain", "Unlicense"),
    (r"permission to use, copy, modify, and(?:/or)? distribute this software for any purpose", "ISC"),
    (r"permission is hereby granted, free of charge, to any person obtaining a copy", "MIT"),
    (r"redistribution and use in source and binary forms.*neither the name", "BSD-3-Clause"),
    (r"redistribution and use in source and binary forms", "BSD-2-Clause"),
)
"""Words of the best known licences, in the order in which they are tried. https://spdx.org/licenses"""

_SPDX = {identifier.lower(): identifier for _, identifier in _FIRST_LINES}
LARGEST = 100_000


def licence_beside(path: Path) -> str | None:
    """Returns the licence that a model card or a licence beside a graph states: an SPDX identifier, or its wording; else None."""
    for folder in folders_of(path):
        stated = card_entry(folder / "README.md", "license")
        if stated not in (None, "other", "unknown"):
            return _SPDX.get(str(stated).lower(), stated)
        own = [folder / f"{path.stem}.LICENSE", folder / f"{path.name}.LICENSE"]
        for file in [*own, *sorted(folder.glob("LICEN[SC]E*"))]:
            if file.is_file() and (known := identified(_text(file))) is not None:
                return known
    return None


def source_beside(path: Path) -> str | None:
    """Returns the source that a model card beside a graph states: its name, or the model that it is based on; else None."""
    for folder in folders_of(path):
        for key in ("source", "model_name", "base_model"):
            if (stated := card_entry(folder / "README.md", key)) is not None:
                return stated
    return None


def note_on_origin(file: str, licence: str | None, source: str | None) -> Note | None:
    """Returns the note that asks for the licence and the source of a graph, as far as they are unknown; else None."""
    unknown = [name for name, value in (("licence", licence), ("source", source)) if value is None]
    if not unknown:
        return None
    be, them = ("is", "it") if len(unknown) == 1 else ("are", "them")
    options = " and ".join(f"`backbone_{name}`" for name in unknown)
    text = f"the {' and the '.join(unknown)} of {file} {be} unknown; state {them} with {options}, or put a model card beside it"
    return Note(text, f"{unknown[0]}-unknown", file=file, unknown=unknown)


def card_entry(card: Path, key: str) -> str | None:
    """Returns a text of the front matter of a model card: ``key: value``, or the first entry of a list; else None."""
    if not card.is_file():
        return None
    matter = re.match(r"\ufeff?---\s*\n(.*?)\n---", _text(card), re.DOTALL)
    entry = re.search(rf"^{re.escape(key)}:[ \t]*(?:\n[ \t]*-[ \t]*)?(.*)$", matter[1], re.MULTILINE) if matter else None
    value = entry[1].partition(" #")[0].strip().strip("[]").split(",")[0].strip().strip("'\"") if entry else ""
    return value or None


def identified(text: str) -> str | None:
    """Returns the SPDX identifier of the text of a licence; None for others."""
    plain = " ".join(text.lower().split())
    return next((identifier for words, identifier in _FIRST_LINES if re.search(words, plain)), None)


def _text(file: Path) -> str:
    with file.open("rb") as stream:
        return stream.read(LARGEST).decode("utf-8", errors="replace")
