"""Every layout of the list is read as meant or refused with the reason, and the docs have the same list."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from layout_list import LAYOUTS, Layout
from making import archive, codes

from crossroads.data.readers import read
from crossroads.errors import DataError
from refusals import refused

DOCS = Path(__file__).parents[3] / "docs" / "reference" / "layouts.md"


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_each_layout_is_read_as_meant_or_refused_with_the_reason(layout: Layout, tmp_path: Path) -> None:
    if "Parquet" in layout.name:
        pytest.importorskip("pyarrow")
    folder = layout.build(tmp_path / "d")
    if not layout.classes:
        with refused(*layout.codes, DataError) as caught:
            read(folder)
        text = str(caught.value)
        assert caught.value.hint
    else:
        dataset = read(folder)
        text = "\n".join(dataset.notes)
        assert dataset.classes == layout.classes, text
        assert Counter(dataset.row(row).split for row in range(len(dataset))) == layout.counts, text
        assert layout.groups == (0 if dataset.groups is None else len(set(dataset.groups.tolist())))
        assert all(dataset.read(row) is not None for row in range(len(dataset))), "each row can be opened"
        assert set(layout.codes) <= set(codes(dataset)), text
    assert [fact for fact in layout.mentions if fact not in text] == [], text


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout.classes], ids=lambda layout: layout.name)
def test_each_layout_is_read_the_same_from_an_archive(layout: Layout, tmp_path: Path) -> None:
    if "Parquet" in layout.name:
        pytest.importorskip("pyarrow")
    folder = layout.build(tmp_path / "d")
    loose, packed = read(folder), read(archive(folder, "zip"))
    assert [packed.row(row)[1:] for row in range(len(packed))] == [loose.row(row)[1:] for row in range(len(loose))]
    assert [bytes(packed.read(row)) for row in range(len(packed))] == [bytes(loose.read(row)) for row in range(len(loose))]
    assert packed.notes == loose.notes


def test_the_docs_show_the_same_list() -> None:
    text = DOCS.read_text("utf-8").partition("## Public data sets and tools")[2]
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| (read|refused)[^|]* \|$", text, re.MULTILINE)
    assert dict(rows) == {layout.name: "read" if layout.classes else "refused" for layout in LAYOUTS}
    assert len(rows) == len(LAYOUTS) >= 40
