"""A restricted unpickler: it builds NumPy arrays and plain containers, and calls nothing that a pickle names.

Pickle is a small stack machine whose programs may import and call anything. This module interprets the same programs, but a
global resolves only through a table to functions written here, which check their arguments, and state is set only on the types
of a second table. Opcodes that none of this needs are refused. The C unpickler of the standard library is no alternative: a
hostile file makes it allocate gigabytes for a memo or a buffer that does not exist.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
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
        persistent: Returns the object of a persistent id; None to refuse such ids.
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
    """The pickle holds something that an honest one does not; the message names it."""


class _Dtype:
    """A dtype while it is unpickled. NumPy shares its dtypes, so no state is set on a real one."""

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
    """Reads the byte order from a dtype's state: ``(version, order, None, None, None, -1, -1, flags)``."""
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
    """Checks that a shape asks for exactly `items` elements. They have been read, so a false shape allocates nothing."""
    if isinstance(value, int):
        value = (value,)
    if not isinstance(value, tuple) or len(value) > 32 or not all(type(n) is int and n >= 0 for n in value):
        raise _Refused("an array without a shape")
    if math.prod(value) != items or not believable(value):
        raise _Refused(f"an array of shape {value} with {items} elements")
    return value


def believable(shape: Sequence[int]) -> bool:
    """Whether an array may have this shape. An empty array takes no memory, yet could claim endless rows, such as (10**12, 0)."""
    return max(shape, default=0) <= max(math.prod(shape), 1_000_000)


def _raw(value: object) -> bytes | bytearray:
    """Returns the contents of an array. Python 2 wrote them as its `str`, which is read as latin1."""
    if isinstance(value, str):
        try:
            return value.encode("latin1")
        except UnicodeEncodeError as error:
            raise _Refused("array contents that are not bytes") from error
    if isinstance(value, (bytes, bytearray)):
        return value
    raise _Refused("an array of Python objects (dtype object)" if isinstance(value, list) else "array contents that are not bytes")


def _array(raw: bytes | bytearray, dtype: np.dtype[Any], shape: object, order: object) -> NDArray[Any]:
    if len(raw) % dtype.itemsize:
        raise _Refused(f"{len(raw)} bytes for an array of {dtype}")
    checked = _shape(shape, len(raw) // dtype.itemsize)
    return np.frombuffer(raw, dtype).reshape(checked, order="F" if order in ("F", b"F") else "C")


def _reconstruct(subtype: object = None, *_shape_and_code: object) -> NDArray[Any]:
    """Returns an empty array for `BUILD` to fill. The further arguments are always the same in an honest pickle."""
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
    """Protocol 5. NumPy 2.3 and later write an array whose axes are permuted with `axes`."""
    real = _real_dtype(dtype)
    if order != "K":
        return _array(_raw(buffer), real, shape, order)
    array = _array(_raw(buffer), real, shape, "C")
    if not isinstance(axes, (tuple, list)) or sorted(map(repr, axes)) != sorted(map(repr, range(array.ndim))):
        raise _Refused("an array whose axes are not a permutation")
    return array.transpose(tuple(axes))


def _encode(text: object = None, encoding: object = None) -> bytes:
    """Python 3 writes bytes as this call in protocols 0 to 2."""
    if isinstance(text, str) and encoding in ("latin1", "latin-1"):
        return text.encode("latin1")
    raise _Refused("codecs.encode of anything but latin1 text")


def _bytearray(contents: object = b"", *_encoding: object) -> bytearray:
    return bytearray(_raw(contents))


def _bytes() -> bytes:
    return b""


def _set(items: object = ()) -> set[object]:
    if not isinstance(items, (list, tuple)):
        raise _Refused("a set of something other than a list")
    return {_plain_key(item) for item in items}


def _frozenset(items: object = ()) -> frozenset[object]:
    return frozenset(_set(items))


def _ordered(items: object = ()) -> OrderedDict[object, object]:
    if not isinstance(items, (list, tuple)) or not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in items):
        raise _Refused("an OrderedDict of something other than a list of pairs")
    return OrderedDict((_plain_key(key), value) for key, value in items)


def _no_call(*_arguments: object) -> NoReturn:
    raise _Refused("a call that builds an array from scratch")


def _plain_key(key: object) -> object:
    """Checks that a key is plain. Hashing a tuple of a million levels would overflow the C stack."""
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
    """A global that the table allows. It cannot be called: only `REDUCE` and `NEWOBJ` reach the function."""

    __slots__ = ("call", "name")

    def __init__(self, name: tuple[str, str], call: Callable[..., object]) -> None:
        self.name = name
        self.call = call


def load_pickle(raw: bytes | IO[bytes], *, allowed: Allowed = NUMPY) -> object:
    """Reads one pickle without executing anything that it names.

    Args:
        raw: The pickle, or an open binary file at its beginning. Protocols 0 to 5, NumPy 1 and 2; Python 2 `str` is read as latin1.
        allowed: What it may name; `NUMPY` by default.

    Returns:
        NumPy arrays and scalars, and plain containers of them. Arrays may be read-only.

    Raises:
        DataError: It names a global outside the table (``os.system``), holds Python objects, lies about a size, or is truncated.
    """
    try:
        return _Machine(io.BytesIO(raw) if isinstance(raw, bytes) else raw, allowed).run()
    except DataError:
        raise
    except _Refused as error:
        raise DataError(
            "a pickle may hold arrays of numbers and plain containers, and nothing that runs code",
            code="unsafe-pickle",
            received=str(error),
            hint="save the arrays with numpy.savez instead, and do not open this file with pickle.load unless you trust it",
        ) from None
    except Exception as error:  # the program is hostile or damaged, whatever the machine trips over
        raise DataError(
            "a pickle must be complete and undamaged",
            code="pickle-damaged",
            received=f"{type(error).__name__}: {error}"[:200],
            hint="write it again, preferably as .npz",
        ) from error


class _Mark:
    """Marks where the arguments of a later opcode begin on the stack."""


_MARK = _Mark()


class _Machine:
    """Runs the program of a pickle. An opcode without a handler is refused.

    Attributes:
        stack: Values, and marks among them.
        memo: Values that the program has numbered.
    """

    def __init__(self, file: IO[bytes], allowed: Allowed) -> None:
        self._file = file
        self.allowed = allowed
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> object:
        while (code := self.read(1)) != pickle.STOP:
            handler = _HANDLERS.get(code)
            if handler is None:
                raise _Refused(f"the opcode {code!r}, which an array of numbers does not need")
            handler(self)
        return self.pop()

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes. A claimed size is not allocated before the bytes are there."""
        parts, missing = [], size
        while missing and (part := self._file.read(min(missing, _BLOCK))):
            parts.append(part)
            missing -= len(part)
        if missing:
            raise EOFError("the pickle is cut off")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def integer(self, size: int) -> int:
        """An unsigned integer of `size` bytes."""
        return int.from_bytes(self.read(size), "little")

    def line(self) -> bytes:
        """The bytes up to the end of the line."""
        raw = self._file.readline()
        if not raw.endswith(b"\n"):
            raise EOFError("the pickle is cut off")
        return raw[:-1]

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value is expected")
        return value

    def pop_mark(self) -> list[Any]:
        """Removes the values behind the last mark, and the mark."""
        start = len(self.stack) - 1
        while self.stack[start] is not _MARK:
            start -= 1
            if start < 0:
                raise ValueError("no mark")
        values = self.stack[start + 1 :]
        del self.stack[start:]
        return values

    def find(self, module: object, name: object) -> _Global:
        if type(module) is not str or type(name) is not str or (module, name) not in self.allowed.globals:
            raise _Refused(f"a reference to {module}.{name}"[:200])
        return _Global((module, name), self.allowed.globals[module, name])

    def persistent(self, key: object) -> object:
        if self.allowed.persistent is None:
            raise _Refused(f"a persistent id {key!r:.60}")
        return self.allowed.persistent(key)


_BLOCK = 1 << 24
_Handler = Callable[[_Machine], None]
_HANDLERS: dict[bytes, _Handler] = {}


def _handles(*codes: bytes) -> Callable[[_Handler], _Handler]:
    def register(handler: _Handler) -> _Handler:
        _HANDLERS.update(dict.fromkeys(codes, handler))
        return handler

    return register


def _pushes(code: bytes, value: Callable[[_Machine], object]) -> None:
    """Registers an opcode that pushes one value."""
    _HANDLERS[code] = lambda machine: machine.stack.append(value(machine))


def _signed(raw: bytes) -> int:
    return int.from_bytes(raw, "little", signed=True)


def _latin1(raw: bytes) -> str:
    return raw.decode("latin1")


def _utf8(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogatepass")


def _line_integer(raw: bytes) -> int | bool:
    return {b"00": False, b"01": True}[raw] if raw in (b"00", b"01") else int(raw)


def _quoted(raw: bytes) -> str:
    """The `repr` of a string of Python 2: ``'a\\xff'``."""
    if len(raw) < 2 or raw[0] != raw[-1] or raw[:1] not in (b"'", b'"'):
        raise ValueError("a string without quotes")
    return raw[1:-1].decode("unicode_escape")


_CONSTANTS: dict[bytes, Callable[[], object]] = {
    **{pickle.NONE: lambda: None, pickle.NEWTRUE: lambda: True, pickle.NEWFALSE: lambda: False},
    **{
        pickle.EMPTY_TUPLE: tuple,
        pickle.EMPTY_LIST: list,
        pickle.EMPTY_DICT: dict,
        pickle.EMPTY_SET: set,
        pickle.MARK: lambda: _MARK,
    },
}
_FIXED: dict[bytes, tuple[int, Callable[[bytes], object]]] = {  # bytes of the value, and how to decode them
    pickle.BININT: (4, _signed),
    pickle.BININT1: (1, lambda raw: raw[0]),
    pickle.BININT2: (2, lambda raw: int.from_bytes(raw, "little")),
    pickle.BINFLOAT: (8, lambda raw: struct.unpack(">d", raw)[0]),
}
_COUNTED: dict[bytes, tuple[int, Callable[[bytes], object]]] = {  # bytes of the length that precedes the value
    **{pickle.LONG1: (1, _signed), pickle.LONG4: (4, _signed)},
    **{pickle.SHORT_BINSTRING: (1, _latin1), pickle.BINSTRING: (4, _latin1)},
    **{pickle.SHORT_BINUNICODE: (1, _utf8), pickle.BINUNICODE: (4, _utf8), pickle.BINUNICODE8: (8, _utf8)},
    **{
        pickle.SHORT_BINBYTES: (1, bytes),
        pickle.BINBYTES: (4, bytes),
        pickle.BINBYTES8: (8, bytes),
        pickle.BYTEARRAY8: (8, bytearray),
    },
}
_LINES: dict[bytes, Callable[[bytes], object]] = {  # values of protocol 0
    pickle.INT: _line_integer,
    pickle.LONG: lambda raw: int(raw.removesuffix(b"L")),
    pickle.FLOAT: float,
    pickle.STRING: _quoted,
    pickle.UNICODE: lambda raw: raw.decode("raw_unicode_escape"),
}
for _code, _make in _CONSTANTS.items():
    _pushes(_code, lambda _machine, make=_make: make())  # type: ignore[misc]
for _code, (_size, _decode) in _FIXED.items():
    _pushes(_code, lambda machine, size=_size, decode=_decode: decode(machine.read(size)))  # type: ignore[misc]
for _code, (_size, _decode) in _COUNTED.items():
    _pushes(_code, lambda machine, size=_size, decode=_decode: decode(machine.read(machine.integer(size))))  # type: ignore[misc]
for _code, _decode in _LINES.items():
    _pushes(_code, lambda machine, decode=_decode: decode(machine.line()))  # type: ignore[misc]

_pushes(pickle.DUP, lambda machine: machine.stack[-1])
_pushes(pickle.GET, lambda machine: machine.memo[int(machine.line())])
_pushes(pickle.BINGET, lambda machine: machine.memo[machine.integer(1)])
_pushes(pickle.LONG_BINGET, lambda machine: machine.memo[machine.integer(4)])
_pushes(pickle.TUPLE, lambda machine: tuple(machine.pop_mark()))
_pushes(pickle.TUPLE1, lambda machine: (machine.pop(),))
_pushes(pickle.TUPLE2, lambda machine: (machine.pop(), machine.pop())[::-1])
_pushes(pickle.TUPLE3, lambda machine: (machine.pop(), machine.pop(), machine.pop())[::-1])
_pushes(pickle.LIST, lambda machine: machine.pop_mark())
_pushes(pickle.DICT, lambda machine: _with_items({}, machine.pop_mark()))
_pushes(pickle.FROZENSET, lambda machine: _frozenset(machine.pop_mark()))
_pushes(pickle.GLOBAL, lambda machine: machine.find(_utf8(machine.line()), _utf8(machine.line())))
_pushes(pickle.STACK_GLOBAL, lambda machine: machine.find(*(machine.pop(), machine.pop())[::-1]))
_pushes(pickle.PERSID, lambda machine: machine.persistent(machine.line().decode("ascii")))
_pushes(pickle.BINPERSID, lambda machine: machine.persistent(machine.pop()))


@_handles(pickle.PROTO)
def _check_protocol(machine: _Machine) -> None:
    if (protocol := machine.integer(1)) > MAX_PROTOCOL:
        raise _Refused(f"pickle protocol {protocol}")


@_handles(pickle.FRAME)
def _skip_frame_size(machine: _Machine) -> None:
    """A frame only says how much may be read ahead."""
    machine.read(8)


@_handles(pickle.POP)
def _pop(machine: _Machine) -> None:
    machine.stack.pop()


@_handles(pickle.POP_MARK)
def _pop_mark(machine: _Machine) -> None:
    machine.pop_mark()


@_handles(pickle.PUT)
def _put(machine: _Machine) -> None:
    machine.memo[int(machine.line())] = machine.stack[-1]


@_handles(pickle.BINPUT)
def _binput(machine: _Machine) -> None:
    machine.memo[machine.integer(1)] = machine.stack[-1]


@_handles(pickle.LONG_BINPUT)
def _long_binput(machine: _Machine) -> None:
    machine.memo[machine.integer(4)] = machine.stack[-1]


@_handles(pickle.MEMOIZE)
def _memoize(machine: _Machine) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


@_handles(pickle.REDUCE, pickle.NEWOBJ)
def _call(machine: _Machine) -> None:
    """Calls the table's function. `NEWOBJ`, a new object of a class, has the same arguments as a call of the class."""
    arguments, target = machine.pop(), machine.pop()
    if type(target) is not _Global or type(arguments) is not tuple:
        raise _Refused(f"a call of a {type(target).__name__}")
    try:
        machine.stack.append(target.call(*arguments))
    except TypeError as error:
        raise _Refused(f"{'.'.join(target.name)} with {len(arguments)} arguments") from error


@_handles(pickle.BUILD)
def _build(machine: _Machine) -> None:
    state, target = machine.pop(), machine.stack[-1]
    builder = machine.allowed.builders.get(type(target))
    if builder is None:
        raise _Refused(f"state for a {type(target).__name__}")
    builder(target, state)


@_handles(pickle.SETITEM)
def _set_item(machine: _Machine) -> None:
    value, key = machine.pop(), machine.pop()
    _with_items(machine.stack[-1], [key, value])


@_handles(pickle.SETITEMS)
def _set_items(machine: _Machine) -> None:
    items = machine.pop_mark()
    _with_items(machine.stack[-1], items)


@_handles(pickle.APPEND)
def _append(machine: _Machine) -> None:
    value = machine.pop()
    _extend(machine.stack[-1], [value])


@_handles(pickle.APPENDS)
def _appends(machine: _Machine) -> None:
    values = machine.pop_mark()
    _extend(machine.stack[-1], values)


@_handles(pickle.ADDITEMS)
def _add_items(machine: _Machine) -> None:
    members, target = machine.pop_mark(), machine.stack[-1]
    if type(target) is not set:
        raise _Refused(f"members for a {type(target).__name__}")
    target.update(map(_plain_key, members))


def _with_items(target: object, items: list[object]) -> object:
    if type(target) not in (dict, OrderedDict):
        raise _Refused(f"items for a {type(target).__name__}")
    mapping = cast("dict[object, object]", target)
    for key, value in zip(items[::2], items[1::2], strict=True):
        mapping[_plain_key(key)] = value
    return target


def _extend(target: object, items: list[object]) -> None:
    if type(target) is not list:
        raise _Refused(f"items for a {type(target).__name__}")
    target.extend(items)
