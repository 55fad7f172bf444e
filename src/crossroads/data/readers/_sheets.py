"""Files of rows as one thing, whatever their form: CSV, TSV, lists without a header, JSON lines, JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice

from crossroads.data.formats import IMAGE_SUFFIXES
from crossroads.data.readers._listing import View, is_image_name, suffix_of
from crossroads.errors import DataError
from crossroads.files.byte_ranges import ByteRange

TABLES = (".csv", ".tsv")
LISTS = (".txt", ".lst")
JSON_LINES = (".jsonl", ".ndjson", ".manifest")
JSON = (".json", ".labels")
SHEETS = (*TABLES, *LISTS, *JSON_LINES, *JSON)
_DELIMITERS = ",;\t"
_HEAD = 1 << 16
_MAX_JSON = 1 << 27
SAMPLE = 64
_FIRST_KEY = re.compile(r"\s*(\[\s*\{|\{\s*\"([^\"]*)\")")
_SPACED = re.compile(rf"(.*?({'|'.join(map(re.escape, sorted(IMAGE_SUFFIXES)))}))\s+(.*)", re.IGNORECASE)

Line = tuple[int, list[str]]


@dataclass(frozen=True, slots=True)
class Sheet:
    """One file of rows.

    Attributes:
        span: The file.
        label: What to call it in a message.
        form: ``csv``, ``list``, ``jsonl`` or ``json``.
        encoding: Of its text.
        delimiter: Between fields; a space stands for any white space.
        headers: Names of the columns; empty where the file has no header line.
        records: The entries of a JSON document, which is parsed once.
        unnamed: Whether the file does not name its columns: it maps images to values.
    """

    span: ByteRange
    label: str
    form: str
    encoding: str = "utf-8-sig"
    delimiter: str = ","
    headers: tuple[str, ...] = ()
    records: tuple[tuple[int, dict[str, str]], ...] = ()
    unnamed: bool = False

    def rows(self) -> Iterator[Line]:
        """Each row with the number of its line, or of its entry in JSON. Raises DataError for one that is not well formed."""
        if self.form == "csv":
            return _csv_rows(self)
        if self.form == "list":
            return _list_rows(self)
        return ((number, [record.get(header, "") for header in self.headers]) for number, record in self.entries())

    def entries(self) -> Iterable[tuple[int, dict[str, str]]]:
        """The objects of a JSON file with their numbers."""
        return self.records if self.form == "json" else _json_lines(self)

    def sample(self) -> list[list[str]]:
        """The first rows, as far as they can be read."""
        found: list[list[str]] = []
        with suppress(DataError):  # whoever reads on meets it again, and says the line
            found.extend(fields for _, fields in islice(self.rows(), SAMPLE))
        return found


def sheet_of(view: View, name: str) -> Sheet:
    """How a file is written, by its first lines."""
    span, label, suffix = view.byte_range(name), view.label(name), suffix_of(name)
    head = span.read(0, _HEAD)
    if suffix in JSON or suffix in JSON_LINES:
        form = "json" if suffix in JSON and not _is_lines(head) else "jsonl"
        sheet = Sheet(span, label, form)
        if form == "json" and not _may_hold_records(head):
            return sheet
        if form == "json":
            sheet = replace(sheet, records=tuple(_records(sheet)), unnamed=_maps_images(head))
        headers: dict[str, None] = {}
        with suppress(DataError):  # whoever reads the rows meets it again, and says the line
            for _, record in sheet.entries():
                headers |= dict.fromkeys(record)
        return replace(sheet, headers=tuple(headers))
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    first = next((line for line in head.decode(encoding, "replace").splitlines() if line.strip()), "")
    delimiter, fields = _split_first(first)
    headless = any(is_image_name(field) for field in fields) or (suffix in LISTS and len(fields) == 1)
    if not headless:
        return Sheet(span, label, "csv", encoding, delimiter, tuple(fields))
    if delimiter == "\t" or len(fields) > 1:
        return Sheet(span, label, "list", encoding, delimiter)
    return Sheet(span, label, "list", encoding, " ")


def _split_first(line: str) -> tuple[str, list[str]]:
    """The delimiter under which the first line has the most fields, and those fields."""
    best: tuple[str, list[str]] = (",", [])
    for delimiter in _DELIMITERS:
        try:
            fields = [field.strip() for field in next(csv.reader([line], delimiter=delimiter), [])]
        except csv.Error:
            continue
        if len(fields) > len(best[1]):
            best = (delimiter, fields)
    return best


def _csv_rows(sheet: Sheet) -> Iterator[Line]:
    """Rows after the header; blank lines are skipped."""
    text = io.TextIOWrapper(sheet.span.stream(), encoding=sheet.encoding, newline="")
    reader = csv.reader(text, delimiter=sheet.delimiter, strict=True)
    line, header = 1, True
    try:
        for fields in reader:
            if fields and any(fields):
                if not header:
                    yield line, fields
                header = False
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{sheet.label} line {line}: not a well-formed row", received=error, hint="check the quotes") from error
    except UnicodeError as error:
        raise DataError(f"{sheet.label} after line {line}: must be UTF-8 text", received=error, hint="save it as UTF-8") from error


def _list_rows(sheet: Sheet) -> Iterator[Line]:
    """Rows of a file without a header."""
    text = io.TextIOWrapper(sheet.span.stream(), encoding=sheet.encoding)
    number = 0
    try:
        for number, line in enumerate(text, 1):
            if line.strip() and not line.startswith("#"):
                yield number, _spaced(line) if sheet.delimiter == " " else next(csv.reader([line], delimiter=sheet.delimiter))
    except csv.Error as error:
        raise DataError(f"{sheet.label} line {number}: not a well-formed row", received=error, hint="check the quotes") from error
    except UnicodeError as error:
        raise DataError(
            f"{sheet.label} after line {number}: must be UTF-8 text", received=error, hint="save it as UTF-8"
        ) from error


def _spaced(line: str) -> list[str]:
    """``a b.jpg Boeing 717`` as the file and the rest; the rest is several fields where all of it is numbers."""
    match = _SPACED.fullmatch(line.strip())
    path, _, rest = (match[1], "", match[3]) if match else line.strip().partition(" ")
    rest = rest.strip()
    numbers = rest.split()
    if len(numbers) > 1 and all(number.lstrip("-").replace(".", "", 1).isdecimal() for number in numbers):
        return [path, *numbers]
    return [path, rest] if rest else [path]


def _is_lines(head: bytes) -> bool:
    """Whether a .json file holds one object per line, as several tools write it."""
    first, _, rest = head.decode("utf-8-sig", "replace").lstrip().partition("\n")
    try:
        return isinstance(json.loads(first), dict) and rest.lstrip().startswith("{")
    except (ValueError, RecursionError):
        return False


def _may_hold_records(head: bytes) -> bool:
    """Whether a JSON document begins like a list of records: others, such as COCO's, may be large and are not parsed."""
    begin = _FIRST_KEY.match(head.decode("utf-8-sig", "replace"))
    return begin is not None and (begin[2] in (None, "files", "version") or is_image_name(begin[2]))


def _maps_images(head: bytes) -> bool:
    """Whether a JSON document begins like an object whose keys are images."""
    begin = _FIRST_KEY.match(head.decode("utf-8-sig", "replace"))
    return begin is not None and begin[2] is not None and is_image_name(begin[2])


def _records(sheet: Sheet) -> Iterator[tuple[int, dict[str, str]]]:
    """The entries of a JSON document."""
    if sheet.span.size > _MAX_JSON:
        raise DataError(
            f"{sheet.label} is too large for one JSON document", received=f"{sheet.span.size} bytes", hint="save it as CSV"
        )
    try:
        document = json.loads(sheet.span.read(0, sheet.span.size))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{sheet.label} is not well-formed JSON", received=error) from error
    if isinstance(document, dict) and all(is_image_name(key) and isinstance(value, (str, int)) for key, value in document.items()):
        document = [{"file": key, "label": value} for key, value in document.items()]
    entries = document.get("files") if isinstance(document, dict) else document
    for number, entry in enumerate(entries if isinstance(entries, list) else (), 1):
        if isinstance(entry, dict):
            yield number, _flat(entry)


def _json_lines(sheet: Sheet) -> Iterator[tuple[int, dict[str, str]]]:
    text = io.TextIOWrapper(sheet.span.stream(), encoding="utf-8-sig")
    number = 0
    try:
        for number, line in enumerate(text, 1):
            if line.strip():
                entry = json.loads(line)
                if not isinstance(entry, dict):
                    raise DataError(f"{sheet.label} line {number}: must be a JSON object", received=line.strip()[:60])
                yield number, _flat(entry)
    except UnicodeError as error:
        raise DataError(
            f"{sheet.label} after line {number}: must be UTF-8 text", received=error, hint="save it as UTF-8"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{sheet.label} line {number}: not well-formed JSON", received=error) from error


def _flat(entry: dict[str, object], prefix: str = "", depth: int = 0) -> dict[str, str]:
    """Nested objects as ``outer.inner``; a list of texts as its members joined by ``|``; other lists are ignored."""
    found: dict[str, str] = {}
    for key, value in entry.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            if depth < 4:
                found |= _flat(value, f"{name}.", depth + 1)
        elif isinstance(value, list):
            if all(isinstance(item, (str, int)) for item in value):
                found[name] = "|".join(map(str, value))
        elif value is not None:
            found[name] = str(value)
    return found


def columns(rows: Sequence[Sequence[str]], width: int) -> list[list[str]]:
    """The fields of some rows, column by column and without the space around them."""
    return [[row[at].strip() if at < len(row) else "" for row in rows] for at in range(width)]
