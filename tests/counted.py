"""A counter between a data set and its images."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any


class Counted:
    """Images that count how they are read."""

    def __init__(self, images: Any) -> None:
        self.images, self.lock = images, threading.Lock()
        self.full, self.parts = Counter[int](), Counter[int]()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return str(self.images.name(index))

    def size(self, index: int) -> int | None:
        return self.images.size(index)

    def read(self, index: int) -> bytes:
        return self.count(self.full, index, self.images.read(index))

    def head(self, index: int, size: int) -> bytes:
        return self.count(self.parts, index, self.images.head(index, size))

    def short_digest(self, index: int) -> bytes:
        return self.count(self.parts, index, self.images.short_digest(index))

    def count(self, counter: Counter[int], index: int, raw: bytes) -> bytes:
        with self.lock:
            counter[index] += 1
            self.bytes += len(raw)
        return raw
