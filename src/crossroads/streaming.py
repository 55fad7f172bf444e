"""Computes the results of any number of images while later ones are decoded, in bounded memory, with refusals in their place."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossroads.data.loading import Streamed
from crossroads.errors import ImageRefused
from crossroads.inference import Graph

WINDOW = 64
"""Most images of a block. A batch is computed before it is full if this many images have come since its first one."""


class Row(NamedTuple):
    """One image of a block.

    Attributes:
        position: Its position in the stream.
        digest: Its digest; empty if none was computed.
        refusal: Why it was refused; None if it was computed.
    """

    position: int
    digest: bytes
    refusal: ImageRefused | None


class Block(NamedTuple):
    """Some images in a row, with their results.

    Attributes:
        rows: The images, in order.
        values: float32 (m, ...), the results of those that were not refused, in order.
    """

    rows: list[Row]
    values: NDArray[np.float32]


@dataclass(slots=True)
class _Group:
    """The images of a block before they are computed."""

    rows: list[Row] = field(default_factory=list)
    pixels: list[NDArray[np.uint8]] = field(default_factory=list)
    first: int = 0

    def add(self, image: Streamed) -> None:
        """Adds one image. The first one with pixels begins the batch."""
        if isinstance(image.image, ImageRefused):
            self.rows.append(Row(image.row, image.digest, image.image))
            return
        if not self.pixels:
            self.first = len(self.rows)
        self.rows.append(Row(image.row, image.digest, None))
        self.pixels.append(image.image)

    def is_complete(self, batch: int) -> bool:
        """Returns whether the group ends. A batch ends at the same image whatever was refused before its first one."""
        start = self.first if self.pixels else 0
        return len(self.pixels) == batch or len(self.rows) - start >= WINDOW


def blocks(graph: Graph, images: Iterable[Streamed], *, resumable: bool = False) -> Iterator[Block]:
    """Yields the results of images in order, in blocks of at most one batch.

    A few batches are in memory at a time, however many images are refused in a row.

    Args:
        graph: From images to results.
        images: Any number of images and refusals.
        resumable: Whether a stream that begins after one of these blocks must give exactly the same results for the rest. A single
            batch is otherwise computed on all threads at once, which is faster.
    """
    groups = _groups(images, graph.batch)
    if not resumable:
        first_two = list(itertools.islice(groups, 2))
        if len(first_two) == 1 and first_two[0].pixels:
            yield Block(first_two[0].rows, graph(np.stack(first_two[0].pixels)))
            return
        groups = itertools.chain(first_two, groups)
    yield from _parallel(graph, groups)


def _groups(images: Iterable[Streamed], batch: int) -> Iterator[_Group]:
    group = _Group()
    for image in images:
        group.add(image)
        if group.is_complete(batch):
            yield group
            group = _Group()
    if group.rows:
        yield group


def _parallel(graph: Graph, groups: Iterable[_Group]) -> Iterator[Block]:
    """Yields the block of each group. New groups are decoded while earlier ones are computed."""
    waiting: deque[tuple[list[Row], bool]] = deque()
    none = np.empty((0, *graph.shape), np.float32)
    with graph.pipeline() as running:

        def block() -> Block:
            rows, computed = waiting.popleft()
            return Block(rows, running.collect() if computed else none)

        for group in groups:
            if len(waiting) == running.most:
                yield block()
            if group.pixels:
                running.submit(np.stack(group.pixels))
            waiting.append((group.rows, bool(group.pixels)))
        while waiting:
            yield block()
