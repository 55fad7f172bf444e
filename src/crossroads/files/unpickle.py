"""Reads pickles with a restricted unpickler. It builds NumPy arrays and plain containers, and calls nothing that a pickle names.

A pickle is a program for a small stack machine, and it may import and call anything. This module runs the same programs with
three restrictions: a global resolves only through a table to a function written here, which checks its arguments; state is set
only on the types of a second table; and opcodes that arrays and containers do not need are refused. A subclass of
`pickle.Unpickler` would not do: a hostile file makes it allocate gigabytes for a memo or a buffer that does not exist.
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
_BLOCK = 1 << 24


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
        persistent = other.persistent or self.persistent
        return Allowed({**self.globals, **other.globals}, {**self.builders, **other.builders}, persistent)


class _Refused(Exception):
    """The exception for a pickle with contents that are not allowed. The message names them."""


class _Dtype:
    """A dtype while it is unpickled. NumPy shares dtype objects, so no state is set on a real one."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype


def _dtype(code: object = None, *_align_and_copy: object) -> _Dtype:
    code = _text(code)
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
    if order in ("<", ">"):
        target.dtype = target.dtype.newbyteorder(cast(Any, order))


def _text(value: object) -> object:
    """Decodes bytes, which Python 2 wrote for a string, and returns other values unchanged."""
    return value.decode("latin1") if isinstance(value, bytes) else value


def _real_dtype(value: object) -> np.dtype[Any]:
    if not isinstance(value, _Dtype):
        raise _Refused("an array without a dtype")
    return value.dtype


def _shape(value: object, items: int) -> tuple[int, ...]:
    """Checks that a shape has exactly `items` elements. These have already been read, so a false shape cannot allocate memory."""
    if isinstance(value, int):
        value = (value,)
    if not isinstance(value, tuple) or len(value) > 32 or not all(type(n) is int and n >= 0 for n in value):
        raise _Refused("an array without a shape")
    if math.prod(value) != items or not believable(value):
        raise _Refused(f"an array of shape {value} with {items} elements")
    return value


def believable(shape: Sequence[int]) -> bool:
    """Returns whether an array may have this shape.

    An empty array takes no memory, so its shape could claim any number of rows, such as (10**12, 0).
    """
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
    """Returns an empty array for `BUILD` to fill. The other arguments are the same in every pickle that NumPy writes."""
    if not isinstance(subtype, _Global) or subtype.name[1] != "ndarray":
        raise _Refused("an array of another type than numpy.ndarray")
    return np.empty(0, np.int8)


def _build_array(target: NDArray[Any], state: object) -> None:
    """Sets the state ``(version, shape, dtype, is_fortran, contents)``. NumPy keeps the contents without a copy."""
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
    """Returns an array that was pickled with protocol 5. NumPy 2.3 and later write `axes` if the axes are permuted."""
    real = _real_dtype(dtype)
    if order != "K":
        return _array(_raw(buffer), real, shape, order)
    array = _array(_raw(buffer), real, shape, "C")
    if not isinstance(axes, (tuple, list)) or sorted(map(repr, axes)) != sorted(map(repr, range(array.ndim))):
        raise _Refused("an array whose axes are not a permutation")
    return array.transpose(tuple(axes))


def _encode(text: object = None, encoding: object = None) -> bytes:
    """Returns bytes. In protocols 0 to 2, Python 3 writes bytes as a call of this function."""
    if isinstance(text, str) and encoding in ("latin1", "latin-1"):
        return text.encode("latin1")
    raise _Refused("codecs.encode of anything but latin1 text")


def _bytearray(contents: object = b"", *_encoding: object) -> bytearray:
    return bytearray(_raw(contents))


def _set(items: object = ()) -> set[object]:
    if not isinstance(items, (list, tuple)):
        raise _Refused("a set of something other than a list")
    return {_plain_key(item) for item in items}


def _ordered(items: object = ()) -> OrderedDict[object, object]:
    if not isinstance(items, (list, tuple)) or not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in items):
        raise _Refused("an OrderedDict of something other than a list of pairs")
    return OrderedDict((_plain_key(key), value) for key, value in items)


def _no_call(*_arguments: object) -> NoReturn:
    raise _Refused("a call that builds an array from scratch")


_PLAIN = (str, bytes, int, float, bool, type(None))


def _plain_key(key: object) -> object:
    """Checks that a key is plain. Hashing a tuple of a million levels would overflow the C stack."""
    parts = key if type(key) is tuple else (key,)
    if len(parts) <= 64 and all(type(part) in _PLAIN for part in parts):
        return key
    raise _Refused(f"a key or set member of type {type(key).__name__}")


_BUILTINS: dict[str, Callable[..., object]] = {
    "bytes": lambda: b"",
    "bytearray": _bytearray,
    "set": _set,
    "frozenset": lambda items=(): frozenset(_set(items)),
}

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
"""Allows arrays of numbers, booleans and strings, NumPy scalars, plain containers, text, bytes and numbers."""


class _Global:
    """An allowed global. It is a placeholder that cannot be called: only `REDUCE` and `NEWOBJ` reach its function."""

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
        DataError: It names a global outside the table (``os.system``), holds objects, declares a false size, or is truncated.
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
    except Exception as error:  # a hostile or damaged program may raise anything
        raise DataError(
            "a pickle must be complete and undamaged",
            code="pickle-damaged",
            received=f"{type(error).__name__}: {error}"[:200],
            hint="write it again, preferably as .npz",
        ) from error


_MARK = object()
"""Marks on the stack where the arguments of a later opcode begin."""


class _Machine:
    """Runs the program of a pickle.

    Attributes:
        allowed: The names that a pickle may use.
        stack: The stack of values and marks.
        memo: The values that the program has stored, by number.
    """

    def __init__(self, file: IO[bytes], allowed: Allowed) -> None:
        self._file = file
        self.allowed = allowed
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> object:
        while (code := self.read(1)) != pickle.STOP:
            if code in _VALUES:
                self.stack.append(_VALUES[code](self))
            elif code in _ACTIONS:
                _ACTIONS[code](self)
            else:
                raise _Refused(f"the opcode {code!r}, which an array of numbers does not need")
        return self.pop()

    def read(self, size: int) -> bytes:
        """Returns exactly `size` bytes. A claimed size is not allocated before the bytes are there."""
        parts, missing = [], size
        while missing and (part := self._file.read(min(missing, _BLOCK))):
            parts.append(part)
            missing -= len(part)
        if missing:
            raise EOFError("the pickle is cut off")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def integer(self, size: int) -> int:
        return int.from_bytes(self.read(size), "little")

    def signed(self, size: int) -> int:
        return int.from_bytes(self.read(size), "little", signed=True)

    def counted(self, size: int) -> bytes:
        """Reads bytes that follow their number, which has `size` bytes."""
        return self.read(self.integer(size))

    def line(self) -> bytes:
        raw = self._file.readline()
        if not raw.endswith(b"\n"):
            raise EOFError("the pickle is cut off")
        return raw[:-1]

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value is expected")
        return value

    def pops(self, count: int) -> tuple[Any, ...]:
        """Removes and returns the last values, in the order in which they were pushed."""
        return tuple(self.pop() for _ in range(count))[::-1]

    def pop_mark(self) -> list[Any]:
        """Removes the last mark and the values after it, and returns the values."""
        start = len(self.stack) - 1
        while self.stack[start] is not _MARK:
            start -= 1
            if start < 0:
                raise ValueError("no mark")
        values = self.stack[start + 1 :]
        del self.stack[start:]
        return values

    def memoize(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def find(self, module: object, name: object) -> _Global:
        if type(module) is not str or type(name) is not str or (module, name) not in self.allowed.globals:
            raise _Refused(f"a reference to {module}.{name}"[:200])
        return _Global((module, name), self.allowed.globals[module, name])

    def persistent(self, key: object) -> object:
        if self.allowed.persistent is None:
            raise _Refused(f"a persistent id {key!r:.60}")
        return self.allowed.persistent(key)

    def call(self) -> object:
        """Calls the table's function. `NEWOBJ`, a new object of a class, has the same arguments as a call of the class."""
        target, arguments = self.pops(2)
        if type(target) is not _Global or type(arguments) is not tuple:
            raise _Refused(f"a call of a {type(target).__name__}")
        try:
            return target.call(*arguments)
        except TypeError as error:
            raise _Refused(f"{'.'.join(target.name)} with {len(arguments)} arguments") from error

    def build(self) -> None:
        """Sets the state of the object below it, by the table's function."""
        state, target = self.pop(), self.stack[-1]
        builder = self.allowed.builders.get(type(target))
        if builder is None:
            raise _Refused(f"state for a {type(target).__name__}")
        builder(target, state)

    def check_protocol(self) -> None:
        if (protocol := self.integer(1)) > MAX_PROTOCOL:
            raise _Refused(f"pickle protocol {protocol}")


def _utf8(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogatepass")


def _line_integer(raw: bytes) -> int | bool:
    return raw == b"01" if raw in (b"00", b"01") else int(raw)


def _quoted(raw: bytes) -> str:
    """Decodes the `repr` of a string of Python 2: ``'a\\xff'``."""
    if len(raw) < 2 or raw[0] != raw[-1] or raw[:1] not in (b"'", b'"'):
        raise ValueError("a string without quotes")
    return raw[1:-1].decode("unicode_escape")


def _set_items(items: Sequence[object], target: object) -> object:
    """Adds ``key, value, key, value, …`` to a dict and returns it."""
    if type(target) not in (dict, OrderedDict):
        raise _Refused(f"items for a {type(target).__name__}")
    mapping = cast("dict[object, object]", target)
    for key, value in zip(items[::2], items[1::2], strict=True):
        mapping[_plain_key(key)] = value
    return target


def _extend(items: Sequence[object], target: object) -> None:
    if type(target) is not list:
        raise _Refused(f"items for a {type(target).__name__}")
    target.extend(items)


def _add_members(members: Sequence[object], target: object) -> None:
    if type(target) is not set:
        raise _Refused(f"members for a {type(target).__name__}")
    target.update(map(_plain_key, members))


_VALUES: dict[bytes, Callable[[_Machine], object]] = {
    pickle.NONE: lambda _: None,
    pickle.NEWTRUE: lambda _: True,
    pickle.NEWFALSE: lambda _: False,
    pickle.EMPTY_TUPLE: lambda _: (),
    pickle.EMPTY_LIST: lambda _: [],
    pickle.EMPTY_DICT: lambda _: {},
    pickle.EMPTY_SET: lambda _: set(),
    pickle.MARK: lambda _: _MARK,
    # Numbers and text. Those of protocol 0 end with their line.
    pickle.BININT: lambda machine: machine.signed(4),
    pickle.BININT1: lambda machine: machine.integer(1),
    pickle.BININT2: lambda machine: machine.integer(2),
    pickle.LONG1: lambda machine: machine.signed(machine.integer(1)),
    pickle.LONG4: lambda machine: machine.signed(machine.integer(4)),
    pickle.BINFLOAT: lambda machine: struct.unpack(">d", machine.read(8))[0],
    pickle.INT: lambda machine: _line_integer(machine.line()),
    pickle.LONG: lambda machine: int(machine.line().removesuffix(b"L")),
    pickle.FLOAT: lambda machine: float(machine.line()),
    pickle.SHORT_BINSTRING: lambda machine: machine.counted(1).decode("latin1"),
    pickle.BINSTRING: lambda machine: machine.counted(4).decode("latin1"),
    pickle.SHORT_BINUNICODE: lambda machine: _utf8(machine.counted(1)),
    pickle.BINUNICODE: lambda machine: _utf8(machine.counted(4)),
    pickle.BINUNICODE8: lambda machine: _utf8(machine.counted(8)),
    pickle.STRING: lambda machine: _quoted(machine.line()),
    pickle.UNICODE: lambda machine: machine.line().decode("raw_unicode_escape"),
    pickle.SHORT_BINBYTES: lambda machine: machine.counted(1),
    pickle.BINBYTES: lambda machine: machine.counted(4),
    pickle.BINBYTES8: lambda machine: machine.counted(8),
    pickle.BYTEARRAY8: lambda machine: bytearray(machine.counted(8)),
    # Containers of values on the stack.
    pickle.TUPLE: lambda machine: tuple(machine.pop_mark()),
    pickle.TUPLE1: lambda machine: machine.pops(1),
    pickle.TUPLE2: lambda machine: machine.pops(2),
    pickle.TUPLE3: lambda machine: machine.pops(3),
    pickle.LIST: lambda machine: machine.pop_mark(),
    pickle.DICT: lambda machine: _set_items(machine.pop_mark(), {}),
    pickle.FROZENSET: lambda machine: frozenset(_set(machine.pop_mark())),
    # Values from elsewhere.
    pickle.DUP: lambda machine: machine.stack[-1],
    pickle.GET: lambda machine: machine.memo[int(machine.line())],
    pickle.BINGET: lambda machine: machine.memo[machine.integer(1)],
    pickle.LONG_BINGET: lambda machine: machine.memo[machine.integer(4)],
    pickle.GLOBAL: lambda machine: machine.find(_utf8(machine.line()), _utf8(machine.line())),
    pickle.STACK_GLOBAL: lambda machine: machine.find(*machine.pops(2)),
    pickle.PERSID: lambda machine: machine.persistent(machine.line().decode("ascii")),
    pickle.BINPERSID: lambda machine: machine.persistent(machine.pop()),
    pickle.REDUCE: _Machine.call,
    pickle.NEWOBJ: _Machine.call,
}
"""Opcodes that push one value."""

_ACTIONS: dict[bytes, Callable[[_Machine], object]] = {
    pickle.PROTO: _Machine.check_protocol,
    pickle.FRAME: lambda machine: machine.read(8),  # the size of a frame, which only helps to read ahead
    pickle.POP: lambda machine: machine.stack.pop(),
    pickle.POP_MARK: _Machine.pop_mark,
    pickle.PUT: lambda machine: machine.memoize(int(machine.line())),
    pickle.BINPUT: lambda machine: machine.memoize(machine.integer(1)),
    pickle.LONG_BINPUT: lambda machine: machine.memoize(machine.integer(4)),
    pickle.MEMOIZE: lambda machine: machine.memoize(len(machine.memo)),
    pickle.BUILD: _Machine.build,
    pickle.SETITEM: lambda machine: _set_items(machine.pops(2), machine.stack[-1]),
    pickle.SETITEMS: lambda machine: _set_items(machine.pop_mark(), machine.stack[-1]),
    pickle.APPEND: lambda machine: _extend(machine.pops(1), machine.stack[-1]),
    pickle.APPENDS: lambda machine: _extend(machine.pop_mark(), machine.stack[-1]),
    pickle.ADDITEMS: lambda machine: _add_members(machine.pop_mark(), machine.stack[-1]),
}
"""Opcodes that change the stack or the memo in another way. An opcode in neither table is refused."""
