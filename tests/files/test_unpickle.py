"""Covers the restricted unpickler: it builds arrays and containers of every protocol, and runs nothing."""

from __future__ import annotations

import builtins
import os
import pickle
import resource
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crossroads.errors import DataError
from crossroads.files.unpickle import NUMPY, Allowed, load_pickle
from refusals import refused

PROTOCOLS = range(6)


def same(left: object, right: object) -> bool:
    if isinstance(left, np.ndarray):
        return (
            isinstance(right, np.ndarray)
            and left.dtype == right.dtype
            and np.array_equal(left, right, equal_nan=left.dtype.kind in "fc")
        )
    return type(left) is type(right) and left == right


dtypes = st.one_of(
    hnp.boolean_dtypes(), hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(), hnp.floating_dtypes(), hnp.complex_number_dtypes(),
    hnp.unicode_string_dtypes(max_len=5), hnp.byte_string_dtypes(max_len=5),
)  # fmt: skip


@given(
    hnp.arrays(dtypes, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)), st.sampled_from(PROTOCOLS), st.booleans()
)
@settings(max_examples=60, deadline=None)
def test_arrays_round_trip(array: np.ndarray, protocol: int, permuted: bool) -> None:
    array = (
        np.asfortranarray(array).T
        if permuted and array.ndim == 2
        else np.swapaxes(array, 0, -1)
        if permuted and array.ndim > 2
        else array
    )
    raw = pickle.dumps({"features": array}, protocol)
    loaded = load_pickle(raw)
    assert isinstance(loaded, dict)
    assert np.array_equal(loaded["features"], array, equal_nan=array.dtype.kind in "fc")
    assert same(loaded["features"], pickle.loads(raw)["features"])  # the byte order too: NumPy makes some of them native


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(plain, st.sampled_from(PROTOCOLS))
@settings(max_examples=60, deadline=None)
def test_plain_containers_round_trip(value: object, protocol: int) -> None:
    assert load_pickle(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_other_plain_values_round_trip(protocol: int) -> None:
    shared = np.arange(3)
    value = {
        "set": {1, 2}, "frozen": frozenset({"a"}), "bytes": b"\xff\0", "array": bytearray(b"ab"), "empty": b"",
        "ordered": OrderedDict(a=1, b=2), "scalar": np.float32(1.5), "text": np.str_("x"), (1, "key"): 3,
    }  # fmt: skip
    loaded = load_pickle(pickle.dumps({**value, "twice": [shared, shared]}, protocol))
    assert isinstance(loaded, dict)
    first, second = loaded.pop("twice")
    assert first is second
    assert np.array_equal(first, shared)
    assert loaded == value
    assert isinstance(loaded["ordered"], OrderedDict)
    assert loaded["scalar"].dtype == np.float32


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("new", "old"), [("numpy._core.multiarray", "numpy.core.multiarray"), ("numpy._core.numeric", "numpy.core.numeric")]
)
def test_module_names_of_numpy_1_are_accepted(protocol: int, new: str, old: str) -> None:
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    raw = pickle.dumps(array, protocol)
    for name in (new, old):
        if new.encode() in raw:  # protocols 4 and 5 state the lengths of the name and of the frame around it
            renamed = raw.replace(b"\x8c" + bytes([len(new)]) + new.encode(), b"\x8c" + bytes([len(name)]) + name.encode())
            renamed = renamed.replace(b"c" + new.encode() + b"\n", b"c" + name.encode() + b"\n")
            if protocol >= 4:
                frame = renamed.index(b"\x95")
                renamed = renamed[: frame + 1] + struct.pack("<Q", len(renamed) - frame - 9) + renamed[frame + 9 :]
            assert same(load_pickle(renamed), array)
    assert same(load_pickle(raw), array)


def python2(array: np.ndarray, protocol: int) -> bytes:
    """Returns a dict of one array as Python 2 with NumPy 1 writes it, with names and contents as byte strings."""
    state = array.tobytes()
    if protocol == 0:
        contents = repr(state)[1:].encode("ascii")
        shape = b"(" + b"".join(f"I{n}\n".encode() for n in array.shape) + b"tp6\n"
        return (
            b"(dp0\nS'features'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntp4\nS'b'\np5\ntRp10\n"
            b"(I1\n" + shape + b"cnumpy\ndtype\np7\n(S'" + array.dtype.str[1:].encode() + b"'\nI0\nI1\ntRp8\n"
            b"(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS" + contents + b"\np9\ntbs."
        )
    contents = b"T" + struct.pack("<i", len(state)) + state
    shape = b"(" + b"".join(b"K" + bytes([n]) for n in array.shape) + b"t"
    return (
        b"\x80\x02}q\x00U\x08featuresq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87R(K\x01"
        + shape + b"cnumpy\ndtype\nU\x02" + array.dtype.str[1:].encode() + b"K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + contents + b"tbs."
    )  # fmt: skip


@pytest.mark.parametrize("protocol", [0, 2])
@pytest.mark.parametrize("dtype", ["u1", "<i4", "<f8"])
def test_python_2_pickles_are_read(protocol: int, dtype: str) -> None:
    array = (np.arange(200).reshape(10, 20) * 1.25).astype(dtype)
    assert same(load_pickle(python2(array, protocol))["features"], array)  # type: ignore[index]


class Evil:
    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple[object, ...]:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("call", "named"),
    [
        ((os.system, "touch {}"), "system"),
        ((eval, "open({!r}, 'w')"), "eval"),
        ((exec, "open({!r}, 'w')"), "exec"),
        ((getattr, os, "system"), None),
        ((builtins.__import__, "os"), "__import__"),
        ((np.load, "{}"), "load"),
        ((np.fromfile, "{}"), "fromfile"),
        ((pickle.loads, b"."), "loads"),
    ],
)
def test_nothing_that_a_pickle_names_is_called(protocol: int, call: tuple[object, ...], named: str | None, tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    call = tuple(part.format(str(mark)) if isinstance(part, str) else part for part in call)
    if call[0] is getattr:
        call = (getattr, Evil(builtins.__import__, "os"), "system")
    with refused("unsafe-pickle", DataError) as caught:
        load_pickle(pickle.dumps({"features": Evil(*call)}, protocol))
    assert caught.value.received.endswith(named or "")
    assert not mark.exists()


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def stack_global(module: str, name: str) -> bytes:
    return short(module) + short(name) + b"\x93"


NDARRAY = stack_global("numpy", "ndarray")
EMPTY_ARRAY = stack_global("numpy.core.multiarray", "_reconstruct") + NDARRAY + b"K\x00\x85C\x01b\x87R"
U1 = stack_global("numpy", "dtype") + short("u1") + b"\x89\x88\x87R"
O8 = stack_global("numpy", "dtype") + short("O8") + b"\x89\x88\x87R"

HOSTILE = {
    "nested attribute": stack_global("numpy", "ndarray.__class__.__base__.__subclasses__"),
    "nested module": stack_global("numpy", "os.system"),
    "attribute of an allowed function": stack_global("numpy.core.multiarray", "_reconstruct.__globals__"),
    "old style nested": b"cnumpy.core.multiarray\nscalar.__globals__\n",
    "module main": b"c__main__\nx\n",
    "empty names": stack_global("", ""),
    "name that is no text": b"K\x01K\x02\x93",
    "state for a dict": b"}}" + short("__class__") + b"K\x01sb",
    "state for a list": b"]}b",
    "state for a global": NDARRAY + b"}b",
    "state of attributes for an array": EMPTY_ARRAY + b"}" + short("__dict__") + b"K\x01sb",
    "slot state for an array": EMPTY_ARRAY + b"N}\x86b",
    "objects in an array": EMPTY_ARRAY + b"(K\x01K\x01\x85" + O8 + b"\x89]K\x01atb",
    "list as contents": EMPTY_ARRAY + b"(K\x01K\x01\x85" + U1 + b"\x89]K\x01atb",
    "lie about the shape": EMPTY_ARRAY + b"(K\x01J\xff\xff\xff\x7f\x85" + U1 + b"\x89C\x01atb",
    "huge empty shape": EMPTY_ARRAY + b"(K\x01J\xff\xff\xff\x7fK\x00\x86" + U1 + b"\x89C\x00tb",
    "negative shape": EMPTY_ARRAY + b"(K\x01J\xff\xff\xff\xff\x85" + U1 + b"\x89C\x01atb",
    "structured dtype": stack_global("numpy", "dtype") + short("u1,O") + b"\x89\x88\x87R",
    "dtype with fields": U1 + b"(K\x03" + short("|") + b"N" + short("a") + b"\x85}J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
    "dtype of nothing": stack_global("numpy", "dtype") + short("S0") + b"\x89\x88\x87R",
    "an array from scratch": NDARRAY + b"J\xff\xff\xff\x7f\x85\x85R",
    "class of another kind": stack_global("numpy.core.multiarray", "_reconstruct") + U1 + b"K\x00\x85C\x01b\x87R",
    "call of data": b"]K\x01\x85R",
    "call with too much": stack_global("_codecs", "encode") + b"(K\x01K\x02K\x03tR",
    "other codec": stack_global("_codecs", "encode") + short("aaaa") + short("rot13") + b"\x86R",
    "newobj": NDARRAY + b"K\x01\x85\x81",
    "newobj_ex": NDARRAY + b")}\x92",
    "obj": b"(" + NDARRAY + b"o",
    "inst": b"(inumpy\nndarray\n",
    "ext1": b"\x82\x01",
    "ext2": b"\x83\x01\x00",
    "ext4": b"\x84\x01\x00\x00\x00",
    "persistent": b"Pkey\n",
    "binary persistent": b"K\x01Q",
    "out of band": b"\x97",
    "read-only buffer": b"C\x01a\x98",
    "protocol 9": b"\x80\x09",
    "append to a dict": b"}K\x01a",
    "append to an array": EMPTY_ARRAY + b"K\x01a",
    "items for an array": EMPTY_ARRAY + b"K\x00K\x01s",
    "members for a list": b"](K\x01\x90",
    "key that is a list": b"}]K\x01s",
    "key that is an array": b"}" + EMPTY_ARRAY + b"K\x01s",
    "deep key": b"}" + b")" + b"\x85" * 300_000 + b"K\x01s",
    "deep member": b"\x8f(" + b")" + b"\x85" * 300_000 + b"\x90",
    "set of pairs": stack_global("builtins", "set") + b"K\x07\x85R",
    "nothing": b"",
    "empty stack": b"0",
    "no such opcode": b"\xff",
    "memo that is not there": b"h\x63",
    "giant bytes": b"\x8e" + struct.pack("<Q", 1 << 40),
    "giant text": b"\x8d" + struct.pack("<Q", 1 << 40),
    "giant byte array": b"\x96" + struct.pack("<Q", 1 << 40),
    "giant frame": b"\x95" + struct.pack("<Q", 1 << 40),
    "giant integer": b"\x8b\xff\xff\xff\x7f",
    "long decimal": b"I" + b"9" * 100_000 + b"\n",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs_are_refused(name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError) as caught:
        load_pickle(b"\x80\x04" + HOSTILE[name] + b".")
    assert caught.value.code in ("unsafe-pickle", "pickle-damaged")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000, "the reader allocated half a gigabyte"


def test_a_giant_memo_index_allocates_nothing() -> None:
    assert load_pickle(b"\x80\x04]r\xff\xff\xff\x7f.") == []


def test_a_global_that_the_pickle_returns_cannot_be_called() -> None:
    assert not callable(load_pickle(b"\x80\x04" + NDARRAY + b"."))


def test_the_error_names_the_global() -> None:
    with refused("unsafe-pickle", received=f"a reference to {os.system.__module__}.system"):
        load_pickle(pickle.dumps(Evil(os.system, "true")))


@given(st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_bytes_load_or_end_in_a_data_error(raw: bytes) -> None:
    try:
        load_pickle(raw)
    except DataError:
        return


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_pickle_loads_or_ends_in_a_data_error(data: st.DataObject) -> None:
    raw = bytearray(pickle.dumps({"features": np.arange(4), "labels": ["a", {1}]}, data.draw(st.sampled_from(PROTOCOLS))))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        load_pickle(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    except DataError:
        return


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_object_arrays_are_refused(protocol: int) -> None:
    with refused("unsafe-pickle", received="an array of Python objects (dtype object)"):
        load_pickle(pickle.dumps(np.array([None, "a"], dtype=object), protocol))


def test_the_table_can_be_extended() -> None:
    more = Allowed(globals={("fractions", "Fraction"): lambda *numbers: numbers}, persistent=lambda key: f"stored {key}")
    raw = b"\x80\x04" + stack_global("fractions", "Fraction") + b"K\x01K\x02\x86RK\x05Q\x86."
    assert load_pickle(raw, allowed=NUMPY | more) == ((1, 2), "stored 5")
    with refused("unsafe-pickle", received="a reference to fractions.Fraction"):
        load_pickle(raw)


def test_an_open_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.p"
    path.write_bytes(pickle.dumps([1, 2]))
    with path.open("rb") as file:
        assert load_pickle(file) == [1, 2]


def test_the_shared_traffic_set_is_read(shared_data: Path) -> None:
    loaded = load_pickle((shared_data / "small_traffic_set" / "small_train_traffic.p").read_bytes())
    assert isinstance(loaded, dict)
    assert loaded["features"].shape == (100, 32, 32, 3)
    assert loaded["features"].dtype == np.uint8
    assert sorted(set(loaded["labels"].tolist())) == [1, 2, 3, 4, 5]
