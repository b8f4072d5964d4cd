"""Arrays and JSON inside a page: compressed, and without a character that could end the element that holds them.

Arrays lie behind each other in one block of bytes, which is compressed once; a reference says where each lies.
"""

import base64
import gzip
import json
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

ALIGNMENT = 4
"""Bytes to whose multiples arrays are laid, as typed arrays of JavaScript need it."""
NO_CODE = 255
"""The code of what is missing or not annotated, in arrays of uint8."""
_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&'\u2028\u2029"}


def as_json(value: Any) -> Markup:
    """JSON that can stand in a `<script>` element: no name in it can end the element, or begin a comment."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # A lone surrogate cannot be written; names of files may have them.
    return Markup(text.translate(_ESCAPES).encode("utf-8", "replace").decode())


def compressed(data: bytes) -> Markup:
    """Bytes as base64 of their gzip; equal bytes give equal text."""
    return Markup(base64.b64encode(gzip.compress(data, 6, mtime=0)).decode())


class Pack:
    """Arrays that are laid behind each other."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0

    def add(self, array: NDArray[Any]) -> list[int | str]:
        """Lays down an array of uint8, uint16 or uint32, [...], and returns its reference: type, offset, length."""
        assert array.dtype in (np.uint8, np.uint16, np.uint32), array.dtype
        data = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        start = self._length
        self._parts.append(data + bytes(-len(data) % ALIGNMENT))
        self._length += len(self._parts[-1])
        return [f"u{array.dtype.itemsize}", start, array.size]

    def bytes(self) -> bytes:
        """All arrays, as the references name them."""
        return b"".join(self._parts)


def codes(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Numbers in [low, high] as 0 to 254, NaN as `NO_CODE`: [...] -> uint8 [...]; they are right to 1/508 of the
    range."""
    missing = np.isnan(values)
    scaled = np.clip((np.where(missing, low, values) - low) / (high - low), 0, 1) * (NO_CODE - 1)
    return np.where(missing, NO_CODE, np.rint(scaled)).astype(np.uint8)
