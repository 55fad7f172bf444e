"""A restricted unpickler: it builds NumPy arrays and plain containers, and calls nothing that a pickle names.

Pickle is a small stack machine whose programs may import and call anything. This one runs the same programs, but a global
resolves only through a table to functions written here, which check what they get; state is set only on the types of a second
table. It extends the standard library's Python implementation and not the C one, because a hostile file makes the C one
allocate gigabytes for a memo or a buffer that is not there; arrays take a handful of opcodes, so this costs nothing.
"""

from __future__ import annotations

import io
import math
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from crossroads.errors import DataError

MAX_PROTOCOL = 5
_SAFE_KINDS = "biufcSU"


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a pickle may name. Extend one with `|`.

    Attributes:
        globals: (module, name) to the function that is called in its place; it must be safe for any arguments.
        builders: Type to the function that sets state on an object of exactly that type: ``(object, state) -> None``.
        persistent: What a persistent id stands for, or None to refuse them.
    """

    globals: Mapping[tuple[str, str], Callable[..., object]] = field(default_factory=dict)
    builders: Mapping[type, Callable[[Any, object], None]] = field(default_factory=dict)
    persistent: Callable[[object], object] | None = None

    def __or__(self, other: Allowed) -> Allowed:
        return Allowed(
            {**self.globals, **other.globals},
            {**self.builders, **other.builders},
            other.persistent or self.persistent,
        )


class _Refused(Exception):
    """Something in the pickle is not what an honest one holds; the message says what."""


class _Dtype:
    """A dtype being unpickled. Real ones are shared objects, so state is never set on them."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype


def _dtype(code: object = None, *_align_and_copy: object) -> _Dtype:
    if isinstance(code, bytes):
        code = code.decode("latin1")
    if not isinstance(code, str) or len(code) > 16:
        raise _Refused(f"dtype {code!r:.40} (only plain numbers, booleans and strings are read)")
    try:
        dtype = np.dtype(code)
    except (TypeError, ValueError) as error:
        raise _Refused(f"dtype {code!r}") from error
    if dtype.kind == "O":
        raise _Refused("an array of Python objects (dtype object)")
    if dtype.kind not in _SAFE_KINDS or dtype.fields is not None or dtype.subdtype is not None or dtype.itemsize == 0:
        raise _Refused(f"dtype {code!r} (only plain numbers, booleans and strings are read)")
    return _Dtype(dtype)


def _build_dtype(target: _Dtype, state: object) -> None:
    """Of a dtype's state only the byte order matters here: ``(version, order, None, None, None, -1, -1, flags)``."""
    if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
        raise _Refused("a dtype with fields")
    order = _text(state[1])
    if order not in ("<", ">", "|", "="):
        raise _Refused(f"byte order {order!r:.20}")
    if order in "<>":
        target.dtype = target.dtype.newbyteorder(cast(Any, order))


def _text(value: object) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else value if isinstance(value, str) else repr(value)


def _real_dtype(value: object) -> np.dtype[Any]:
    if not isinstance(value, _Dtype):
        raise _Refused("an array without a dtype")
    return value.dtype


def _shape(value: object, items: int) -> tuple[int, ...]:
    """A shape that asks for exactly `items` elements; the elements are there, so nothing is allocated for a lie."""
    if isinstance(value, int):
        value = (value,)
    if not isinstance(value, tuple) or len(value) > 32 or not all(type(n) is int and n >= 0 for n in value):
        raise _Refused("an array without a shape")
    if math.prod(value) != items or not believable(value):
        raise _Refused(f"an array of shape {value} with {items} elements")
    return value


def believable(shape: Sequence[int]) -> bool:
    """Whether an array may have this shape: an empty one takes no room and could still claim endless rows, such as (10**12, 0)."""
    return max(shape, default=0) <= max(math.prod(shape), 1_000_000)


def _raw(value: object) -> bytes | bytearray:
    """Array contents; Python 2 wrote them as its `str`, which is read as latin1."""
    if isinstance(value, str):
        try:
            return value.encode("latin1")
        except UnicodeEncodeError as error:
            raise _Refused("array contents that are no bytes") from error
    if isinstance(value, (bytes, bytearray)):
        return value
    raise _Refused("an array of Python objects (dtype object)" if isinstance(value, list) else "array contents that are no bytes")


def _array(raw: bytes | bytearray, dtype: np.dtype[Any], shape: object, order: object) -> NDArray[Any]:
    if len(raw) % dtype.itemsize:
        raise _Refused(f"{len(raw)} bytes for an array of {dtype}")
    checked = _shape(shape, len(raw) // dtype.itemsize)
    return np.frombuffer(raw, dtype).reshape(checked, order="F" if order in ("F", b"F") else "C")


def _reconstruct(subtype: object = None, *_shape_and_code: object) -> NDArray[Any]:
    """An empty array that `BUILD` fills; the further arguments say nothing in an honest pickle."""
    if not isinstance(subtype, _Global) or subtype.name[1] != "ndarray":
        raise _Refused("an array of another type than numpy.ndarray")
    return np.empty(0, np.int8)


def _build_array(target: NDArray[Any], state: object) -> None:
    """``(version, shape, dtype, is_fortran, contents)``; NumPy keeps the contents and does not copy them."""
    if not isinstance(state, tuple) or len(state) not in (4, 5):
        raise _Refused("an array with a state that NumPy does not write")
    shape, dtype, fortran, contents = state[-4:]
    real, raw = _real_dtype(dtype), bytes(_raw(contents))
    _array(raw, real, shape, "F" if fortran else "C")  # raises unless they agree
    cast(Any, target).__setstate__((1, shape if isinstance(shape, tuple) else (shape,), real, bool(fortran), raw))


def _scalar(dtype: object = None, contents: object = None) -> object:
    return _array(_raw(contents), _real_dtype(dtype), (), "C")[()]


def _frombuffer(
    buffer: object = None, dtype: object = None, shape: object = None, order: object = "C", axes: object = None
) -> object:
    """Protocol 5; `axes` is how NumPy 2.3 and later write an array whose axes are permuted."""
    real = _real_dtype(dtype)
    if order != "K":
        return _array(_raw(buffer), real, shape, order)
    array = _array(_raw(buffer), real, shape, "C")
    if not isinstance(axes, (tuple, list)) or sorted(map(repr, axes)) != sorted(map(repr, range(array.ndim))):
        raise _Refused("an array with axes that are no permutation")
    return array.transpose(tuple(axes))


def _encode(text: object = None, encoding: object = None) -> bytes:
    """How Python 3 writes bytes in protocols 0 to 2."""
    if isinstance(text, str) and encoding in ("latin1", "latin-1"):
        return text.encode("latin1")
    raise _Refused("codecs.encode of anything but latin1 text")


def _bytearray(contents: object = b"", *_encoding: object) -> bytearray:
    return bytearray(_raw(contents))


def _bytes() -> bytes:
    return b""


def _set(items: object = ()) -> set[object]:
    if not isinstance(items, (list, tuple)):
        raise _Refused("a set of something that is no list")
    return {_plain_key(item) for item in items}


def _frozenset(items: object = ()) -> frozenset[object]:
    return frozenset(_set(items))


def _ordered(items: object = ()) -> OrderedDict[object, object]:
    if not isinstance(items, (list, tuple)) or not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in items):
        raise _Refused("an OrderedDict of something that is no list of pairs")
    return OrderedDict((_plain_key(key), value) for key, value in items)


def _no_call(*_arguments: object) -> NoReturn:
    raise _Refused("a call that builds an array from scratch")


def _plain_key(key: object) -> object:
    """Keys are plain: hashing a tuple of a million levels would overflow the C stack."""
    if type(key) in (str, bytes, int, float, bool, type(None)):
        return key
    if type(key) is tuple and len(key) <= 64 and all(type(part) in (str, bytes, int, float, bool, type(None)) for part in key):
        return key
    raise _Refused(f"a key or set member of type {type(key).__name__}")


_BUILTINS: dict[str, Callable[..., object]] = {"bytes": _bytes, "bytearray": _bytearray, "set": _set, "frozenset": _frozenset}

NUMPY = Allowed(
    globals={
        **{(module, "_reconstruct"): _reconstruct for module in ("numpy.core.multiarray", "numpy._core.multiarray")},
        **{(module, "scalar"): _scalar for module in ("numpy.core.multiarray", "numpy._core.multiarray")},
        **{(module, "_frombuffer"): _frombuffer for module in ("numpy.core.numeric", "numpy._core.numeric")},
        ("numpy", "ndarray"): _no_call,
        ("numpy", "dtype"): _dtype,
        ("_codecs", "encode"): _encode,
        ("codecs", "encode"): _encode,
        ("collections", "OrderedDict"): _ordered,
        **{(module, name): call for module in ("builtins", "__builtin__") for name, call in _BUILTINS.items()},
    },
    builders={np.ndarray: _build_array, _Dtype: _build_dtype},
)
"""Arrays of numbers, booleans and strings, NumPy scalars, dict, OrderedDict, list, tuple, set, bytes, text, numbers."""


class _Global:
    """A global that the table allows. It is no function: only `REDUCE` reaches what stands behind it."""

    __slots__ = ("call", "name")

    def __init__(self, name: tuple[str, str], call: Callable[..., object]) -> None:
        self.name = name
        self.call = call


def load_pickle(raw: bytes | IO[bytes], *, allowed: Allowed = NUMPY) -> object:
    """Read one pickle without executing anything that it names.

    Args:
        raw: The pickle, or an open binary file at its beginning. Protocols 0 to 5, NumPy 1 and 2; Python 2 `str` is read as latin1.
        allowed: What it may name; `NUMPY` by default.

    Returns:
        NumPy arrays and scalars, and plain containers of them. Arrays may be read-only.

    Raises:
        DataError: It names a global outside the table (``os.system``), holds Python objects, lies about a size, or is truncated.
    """
    machine = _Machine(io.BytesIO(raw) if isinstance(raw, bytes) else raw, allowed)
    try:
        return machine.load()
    except DataError:
        raise
    except _Refused as error:
        raise _unsafe(str(error)) from None
    except Exception as error:  # the machine meets hostile programs: whatever it trips over, the pickle is at fault
        raise DataError(
            "a pickle must be complete and undamaged",
            received=f"{type(error).__name__}: {error}"[:200],
            hint="write it again, better as .npz",
        ) from error


def _unsafe(received: str) -> DataError:
    return DataError(
        "a pickle may hold arrays of numbers and plain containers, and nothing that runs code",
        received=received,
        hint="save the arrays with numpy.savez instead, and do not open this file with pickle.load unless you trust it",
    )


_Op = Callable[["_Machine"], None]
_DISPATCH: dict[int, Any] = dict(pickle._Unpickler.dispatch)


def _op(code: bytes) -> Callable[[_Op], _Op]:
    def register(function: _Op) -> _Op:
        _DISPATCH[code[0]] = function
        return function

    return register


class _Machine(pickle._Unpickler):
    """The standard machine with every opcode replaced that could call, import, hash or allocate at a pickle's word."""

    dispatch = _DISPATCH
    stack: list[Any]
    append: Callable[[object], None]
    pop_mark: Callable[[], list[Any]]
    read: Callable[[int], bytes]
    proto: int

    def __init__(self, file: IO[bytes], allowed: Allowed) -> None:
        super().__init__(file, fix_imports=False, encoding="latin1")
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> object:
        key = (module, name)
        if key not in self._allowed.globals:
            raise _unsafe(f"a reference to {module}.{name}"[:200])
        return _Global(key, self._allowed.globals[key])

    def persistent_load(self, pid: object) -> object:
        if self._allowed.persistent is None:
            raise _Refused(f"a persistent id {pid!r:.60}")
        return self._allowed.persistent(pid)


@_op(pickle.NEWOBJ)  # a new object of a class: here the table's function for it, with the same arguments
@_op(pickle.REDUCE)
def _load_reduce(machine: _Machine) -> None:
    arguments = machine.stack.pop()
    target = machine.stack[-1]
    if type(target) is not _Global or type(arguments) is not tuple:
        raise _Refused(f"a call of a {type(target).__name__}")
    try:
        machine.stack[-1] = target.call(*arguments)
    except TypeError as error:
        raise _Refused(f"{'.'.join(target.name)} with {len(arguments)} arguments") from error


@_op(pickle.BUILD)
def _load_build(machine: _Machine) -> None:
    state = machine.stack.pop()
    target = machine.stack[-1]
    builder = machine._allowed.builders.get(type(target))
    if builder is None:
        raise _Refused(f"state for a {type(target).__name__}")
    builder(target, state)


def _set_items(target: object, items: list[object]) -> None:
    if type(target) not in (dict, OrderedDict):
        raise _Refused(f"items for a {type(target).__name__}")
    mapping = cast("dict[object, object]", target)
    for key, value in zip(items[::2], items[1::2], strict=True):
        mapping[_plain_key(key)] = value


@_op(pickle.SETITEM)
def _load_setitem(machine: _Machine) -> None:
    value = machine.stack.pop()
    key = machine.stack.pop()
    _set_items(machine.stack[-1], [key, value])


@_op(pickle.SETITEMS)
def _load_setitems(machine: _Machine) -> None:
    items = machine.pop_mark()
    _set_items(machine.stack[-1], items)


@_op(pickle.DICT)
def _load_dict(machine: _Machine) -> None:
    items = machine.pop_mark()
    made: dict[object, object] = {}
    _set_items(made, items)
    machine.append(made)


@_op(pickle.APPEND)
def _load_append(machine: _Machine) -> None:
    value = machine.stack.pop()
    _extend(machine.stack[-1], [value])


@_op(pickle.APPENDS)
def _load_appends(machine: _Machine) -> None:
    items = machine.pop_mark()
    _extend(machine.stack[-1], items)


def _extend(target: object, items: list[object]) -> None:
    if type(target) is not list:
        raise _Refused(f"items for a {type(target).__name__}")
    target.extend(items)


@_op(pickle.ADDITEMS)
def _load_additems(machine: _Machine) -> None:
    items = machine.pop_mark()
    target = machine.stack[-1]
    if type(target) is not set:
        raise _Refused(f"members for a {type(target).__name__}")
    target.update(map(_plain_key, items))


@_op(pickle.FROZENSET)
def _load_frozenset(machine: _Machine) -> None:
    members = machine.pop_mark()  # first: it changes what `append` is bound to
    machine.append(_frozenset(members))


@_op(pickle.BYTEARRAY8)
def _load_bytearray(machine: _Machine) -> None:
    size = int.from_bytes(machine.read(8), "little")
    contents = machine.read(size)  # reads what is there; the standard machine allocates what is claimed
    if len(contents) != size:
        raise EOFError("a byte array is cut off")
    machine.append(bytearray(contents))


@_op(pickle.PROTO)
def _load_protocol(machine: _Machine) -> None:
    protocol = machine.read(1)[0]
    if protocol > MAX_PROTOCOL:
        raise _Refused(f"pickle protocol {protocol}")
    machine.proto = protocol


def _refuse(name: str) -> _Op:
    def refused(_machine: _Machine) -> None:
        raise _Refused(f"the opcode {name}, which an array of numbers does not need")

    return refused


for _name in ("INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"):
    _DISPATCH[getattr(pickle, _name)[0]] = _refuse(_name)
