"""Records as plain values for JSON, and back."""

import json
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pytest

from crossroads.plain import from_plain, to_plain
from crossroads.progress import Note


class Pair(NamedTuple):
    low: float
    high: float


@dataclass(frozen=True)
class Inner:
    kind: Literal["probe", "training"]
    pairs: tuple[Pair, ...] = ()


@dataclass(frozen=True)
class Outer:
    name: str
    count: int | None
    inner: Inner | None
    by_name: dict[str, Inner]
    anything: dict[str, object]


RECORD = Outer("a", 3, Inner("probe", (Pair(0.1, 1.0),)), {"b": Inner("training")}, {"c": [1, {"d": None}]})
PLAIN = {
    "name": "a",
    "count": 3,
    "inner": {"kind": "probe", "pairs": [{"low": 0.1, "high": 1.0}]},
    "by_name": {"b": {"kind": "training", "pairs": []}},
    "anything": {"c": [1, {"d": None}]},
}


def test_a_record_is_a_dict_of_its_fields_and_is_read_as_it_was_written():
    assert to_plain(RECORD) == PLAIN
    assert from_plain(Outer, json.loads(json.dumps(PLAIN))) == RECORD


def test_a_whole_number_is_read_as_a_float_where_the_field_is_one():
    pair = from_plain(Pair, {"low": 0, "high": 1})
    assert [type(value) for value in pair] == [float, float]


def test_a_field_with_a_default_may_be_missing():
    assert from_plain(Inner, {"kind": "probe"}) == Inner("probe")


@pytest.mark.parametrize(
    "changed",
    [
        {"name": None},
        {"name": 3},
        {"count": 1.5},
        {"count": True},
        {"inner": {"kind": "other"}},
        {"inner": {"kind": "probe", "pairs": [{"low": 0.1}]}},
        {"inner": {"kind": "probe", "pairs": [[0.1, 1.0]]}},
        {"by_name": []},
        {"unknown": 1},
    ],
    ids=str,
)
def test_values_of_another_form_are_refused(changed):
    with pytest.raises(ValueError):
        from_plain(Outer, PLAIN | changed)


@pytest.mark.parametrize("values", [None, [], {}, {"name": "a"}], ids=str)
def test_missing_fields_are_refused(values):
    with pytest.raises(ValueError):
        from_plain(Outer, values)


def test_floats_keep_as_many_digits_as_asked():
    value = 1 / 3
    assert to_plain(Pair(value, 1e-7 * value)) == {"low": value, "high": 1e-7 * value}
    assert to_plain({"pairs": [Pair(value, 1e-7 * value)]}, 4) == {"pairs": [{"low": 0.3333, "high": 3.333e-8}]}


def test_notes_and_numbers_of_numpy_become_plain_values():
    plain = to_plain({"note": Note("text", "code"), "number": np.float64(0.5)})
    assert [type(value) for value in plain.values()] == [str, float]


def test_arrays_become_lists_and_keys_become_text():
    plain = to_plain({3: np.arange(4).reshape(2, 2), 5: np.array([1 / 3]), 7: np.int64(2)}, 2)
    assert plain == {"3": [[0, 1], [2, 3]], "5": [0.33], "7": 2}
    assert type(plain["7"]) is int


def test_a_record_with_a_form_of_its_own_decides_it():
    class Own:
        def to_json(self):
            return {"own": 1}

    assert to_plain({"records": (Own(),)}) == {"records": [{"own": 1}]}


def test_a_value_without_a_json_form_is_an_error():
    with pytest.raises(TypeError, match="set"):
        to_plain({"a": {1}})
