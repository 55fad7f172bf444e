"""Work on many rows in a few threads, in order and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from crossroads._platform import usable_processors

T = TypeVar("T")


def in_order(work: Callable[[range], T], rows: int, *, chunk: int, workers: int | None = None) -> Iterator[T]:
    """`work` on each run of `chunk` rows, results in row order.

    At most two runs a worker are under way or waiting, so memory stays bounded however slow the consumer is. An error in `work` is
    raised here, where its result would have come; runs not yet started are then dropped, as they are when the iterator is closed.

    Args:
        work: Called in a worker thread with a range of row numbers.
        rows: Number of rows.
        chunk: Rows a call.
        workers: Threads; None for one a processor, 16 at most: decoding releases the interpreter lock, the rest does not.
    """
    count = usable_processors(16) if workers is None else max(1, workers)
    starts = iter(range(0, rows, chunk))
    executor = ThreadPoolExecutor(count, thread_name_prefix="crossroads-images")
    waiting: deque[Future[T]] = deque()
    try:
        for start in starts:
            waiting.append(executor.submit(work, range(start, min(start + chunk, rows))))
            if len(waiting) >= 2 * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
