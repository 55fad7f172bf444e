"""Reads `.npy` files, each of which holds one array. Python objects in them are never unpickled."""

from __future__ import annotations

import math
import tokenize
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from crossroads.errors import DataError
from crossroads.files.byte_ranges import ByteRange
from crossroads.files.unpickle import believable

BAD_HEADER = (ValueError, EOFError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError)
"""The exceptions that NumPy raises for a damaged header."""


def read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Reads an `.npy` header and returns the shape, whether the order is Fortran's, and the dtype.

    Raises one of `BAD_HEADER` if the header is damaged.
    """
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    return tuple(map(int, shape)), fortran, dtype


def load_npy(span: ByteRange) -> NDArray[np.generic]:
    """Returns the array in an .npy file, without copying it. The array is read-only.

    Raises:
        DataError: The file is not an .npy file, holds Python objects, or has fewer bytes than its header declares.
    """
    buffer = span.buffer()
    try:
        stream = span.stream()
        shape, fortran, dtype = read_header(stream)
        if dtype.hasobject:
            raise DataError(
                f"{span.origin} must be an array of numbers or strings",
                code="array-of-objects",
                received="an array of Python objects, which needs pickle",
                hint="save it again with one dtype, such as images.astype('uint8') or labels.astype(str)",
            )
        start, items = stream.tell(), math.prod(shape)
        if len(buffer) - start < items * dtype.itemsize or dtype.itemsize == 0:
            received = f"{len(buffer) - start} of {items * dtype.itemsize} bytes"
            hint = "download or save it again"
            raise DataError(f"{span.origin} is truncated", code="file-truncated", received=received, hint=hint)
        if not believable(shape):
            raise ValueError(f"shape {shape}")
        flat = np.frombuffer(buffer, dtype, items, start) if items else np.empty(0, dtype)
        return flat.reshape(shape, order="F" if fortran else "C")
    except BAD_HEADER as error:
        hint = "save it again with numpy.save"
        rule = f"{span.origin} is not a readable .npy array"
        raise DataError(rule, code="array-damaged", received=error, hint=hint) from error
