"""Reads files of rows (CSV, TSV, lists without a header, JSON lines and JSON) as one common type."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice

from crossroads.data.formats import IMAGE_SUFFIXES
from crossroads.data.readers._listing import Listing, is_image_name, suffix_of
from crossroads.errors import DataError
from crossroads.files.byte_ranges import ByteRange

TABLES = (".csv", ".tsv")
LISTS = (".txt", ".lst")
JSON_LINES = (".jsonl", ".ndjson", ".manifest")
JSON = (".json", ".labels")
SHEETS = (*TABLES, *LISTS, *JSON_LINES, *JSON)
SAMPLE = 64
_DELIMITERS = ",;\t"
_HEAD = 1 << 16
_MAX_JSON = 1 << 27
_MAX_NESTING = 4
_CHECK_JSON = "check the file with a JSON parser"
_FIRST_KEY = re.compile(r"\s*(\[\s*\{|\{\s*\"([^\"]*)\")")
_SPACED = re.compile(rf"(.*?({'|'.join(map(re.escape, sorted(IMAGE_SUFFIXES)))}))\s+(.*)", re.IGNORECASE)

Line = tuple[int, list[str]]
Record = tuple[int, dict[str, str]]


@dataclass(frozen=True, slots=True)
class Sheet:
    """One file of rows.

    Attributes:
        file: The bytes of the file.
        label: What messages call the file.
        form: ``csv``, ``list``, ``jsonl`` or ``json``.
        encoding: Encoding of the text.
        delimiter: Character that separates fields. A space means any white space.
        headers: Names of the columns. Empty if the file has no header line.
        records: Entries of a JSON document, which is parsed only once.
        unnamed: Whether the file is a JSON object that maps images to values, so that its columns have no names.
    """

    file: ByteRange
    label: str
    form: str
    encoding: str = "utf-8-sig"
    delimiter: str = ","
    headers: tuple[str, ...] = ()
    records: tuple[Record, ...] = ()
    unnamed: bool = False

    def rows(self) -> Iterator[Line]:
        """Yields each row with its line number, or in JSON with the number of its entry. Raises `DataError` for a malformed row."""
        if self.form == "csv":
            return _csv_rows(self)
        if self.form == "list":
            return _list_rows(self)
        return ((number, [record.get(header, "") for header in self.headers]) for number, record in self.entries())

    def entries(self) -> Iterable[Record]:
        """Returns the objects of a JSON file with their numbers."""
        return self.records if self.form == "json" else _json_lines(self)

    def sample(self) -> list[list[str]]:
        """Returns the first rows. Stops at a malformed row."""
        rows: list[list[str]] = []
        with suppress(DataError):  # the error is raised again, with its line, when all rows are read
            rows.extend(fields for _, fields in islice(self.rows(), SAMPLE))
        return rows

    @contextmanager
    def lines(self, newline: str | None = None) -> Iterator[io.TextIOWrapper]:
        """Opens the file as text. Raises `DataError` if the text cannot be decoded."""
        try:
            yield io.TextIOWrapper(self.file.stream(), encoding=self.encoding, newline=newline)
        except UnicodeError as error:
            raise self.fault("must be UTF-8 text", "not-utf8", error, "save it as UTF-8") from error

    def fault(self, rule: str, code: str, received: object, hint: str | None, line: int | None = None) -> DataError:
        """Returns an error about the file or about one of its lines."""
        place = self.label if line is None else f"{self.label} line {line}"
        return DataError(f"{place} {rule}", code=code, received=received, hint=hint)


def sheet_of(listing: Listing, name: str) -> Sheet:
    """Opens a file of rows. Its first lines determine the form."""
    file, label, suffix = listing.byte_range(name), listing.label(name), suffix_of(name)
    head = file.read(0, _HEAD)
    if suffix in JSON or suffix in JSON_LINES:
        return _json_sheet(Sheet(file, label, "json" if suffix in JSON and not _is_json_lines(head) else "jsonl"), head)
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    first = next((line for line in head.decode(encoding, "replace").splitlines() if line.strip()), "")
    delimiter, fields = _split_first(first)
    headless = any(is_image_name(field) for field in fields) or (suffix in LISTS and len(fields) == 1)
    if not headless:
        return Sheet(file, label, "csv", encoding, delimiter, tuple(fields))
    return Sheet(file, label, "list", encoding, delimiter if delimiter == "\t" or len(fields) > 1 else " ")


def _json_sheet(sheet: Sheet, head: bytes) -> Sheet:
    """Adds the headers to a JSON sheet. A document is parsed only if it begins like a list of records or a mapping of images."""
    if sheet.form == "json":
        begin = _FIRST_KEY.match(head.decode("utf-8-sig", "replace"))
        key = begin[2] if begin else ""
        maps_images = key is not None and is_image_name(key)
        if begin is None or not (key in (None, "files", "version") or maps_images):
            return sheet  # this may be a COCO document, which can be large
        sheet = replace(sheet, records=tuple(_json_records(sheet)), unnamed=maps_images)
    headers: dict[str, None] = {}
    with suppress(DataError):  # the error is raised again, with its line, when all rows are read
        for _, record in sheet.entries():
            headers |= dict.fromkeys(record)
    return replace(sheet, headers=tuple(headers))


def _split_first(line: str) -> tuple[str, list[str]]:
    """Returns the delimiter that divides the first line into the most fields, and these fields."""
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
    """Yields the rows after the header. Skips blank lines."""
    with sheet.lines(newline="") as text:
        reader = csv.reader(text, delimiter=sheet.delimiter, strict=True)
        line, is_header = 1, True
        try:
            for fields in reader:
                if fields and any(fields):
                    if not is_header:
                        yield line, fields
                    is_header = False
                line = reader.line_num + 1
        except csv.Error as error:
            raise sheet.fault("is not a well-formed row", "malformed-row", error, "check the quotes", line) from error


def _list_rows(sheet: Sheet) -> Iterator[Line]:
    """Yields the rows of a file without a header."""
    number = 0
    with sheet.lines() as text:
        try:
            for number, line in enumerate(text, 1):
                if line.strip() and not line.startswith("#"):
                    fields = _spaced(line) if sheet.delimiter == " " else next(csv.reader([line], delimiter=sheet.delimiter))
                    yield number, fields
        except csv.Error as error:
            raise sheet.fault("is not a well-formed row", "malformed-row", error, "check the quotes", number) from error


def _spaced(line: str) -> list[str]:
    """Splits a line such as ``a b.jpg Boeing 717`` into the file name and the rest.

    The rest is one field, unless it consists only of numbers.
    """
    match = _SPACED.fullmatch(line.strip())
    path, _, rest = (match[1], "", match[3]) if match else line.strip().partition(" ")
    rest = rest.strip()
    numbers = rest.split()
    if len(numbers) > 1 and all(number.lstrip("-").replace(".", "", 1).isdecimal() for number in numbers):
        return [path, *numbers]
    return [path, rest] if rest else [path]


def _is_json_lines(head: bytes) -> bool:
    """Returns whether a .json file holds one object per line. Several tools write such files."""
    first, _, rest = head.decode("utf-8-sig", "replace").lstrip().partition("\n")
    try:
        return isinstance(json.loads(first), dict) and rest.lstrip().startswith("{")
    except (ValueError, RecursionError):
        return False


def _json_records(sheet: Sheet) -> Iterator[Record]:
    """Yields the entries of a JSON document."""
    if sheet.file.size > _MAX_JSON:
        raise sheet.fault("is too large for one JSON document", "json-too-large", f"{sheet.file.size} bytes", "save it as CSV")
    document = _parsed(sheet, sheet.file.read(0, sheet.file.size))
    if isinstance(document, dict) and all(is_image_name(key) and isinstance(value, (str, int)) for key, value in document.items()):
        document = [{"file": key, "label": value} for key, value in document.items()]
    entries = document.get("files") if isinstance(document, dict) else document
    for number, entry in enumerate(entries if isinstance(entries, list) else (), 1):
        if isinstance(entry, dict):
            yield number, _flat(entry)


def _json_lines(sheet: Sheet) -> Iterator[Record]:
    with sheet.lines() as text:
        for number, line in enumerate(text, 1):
            if line.strip():
                entry = _parsed(sheet, line, number)
                if not isinstance(entry, dict):
                    received = line.strip()[:60]
                    raise sheet.fault("must be a JSON object", "malformed-json", received, _CHECK_JSON, number)
                yield number, _flat(entry)


def _parsed(sheet: Sheet, text: str | bytes, line: int | None = None) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise sheet.fault("is not well-formed JSON", "malformed-json", error, _CHECK_JSON, line) from error


def _flat(entry: dict[str, object], prefix: str = "", depth: int = 0) -> dict[str, str]:
    """Flattens an entry. Nested values get names such as ``outer.inner``, and lists of strings or integers are joined with ``|``.

    Other lists are ignored.
    """
    flat: dict[str, str] = {}
    for key, value in entry.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            if depth < _MAX_NESTING:
                flat |= _flat(value, f"{name}.", depth + 1)
        elif isinstance(value, list):
            if all(isinstance(item, (str, int)) for item in value):
                flat[name] = "|".join(map(str, value))
        elif value is not None:
            flat[name] = str(value)
    return flat


def columns(rows: Sequence[Sequence[str]], width: int) -> list[list[str]]:
    """Transposes rows to columns. Strips white space around the fields."""
    return [[row[at].strip() if at < len(row) else "" for row in rows] for at in range(width)]
