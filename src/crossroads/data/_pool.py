"""Maps a function over many rows in a few threads. Keeps the order and bounds the memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from crossroads._runtime.machine import usable_processors

T = TypeVar("T")
Task = TypeVar("Task")


def map_ordered(work: Callable[[Task], T], tasks: Iterable[Task], *, workers: int | None = None) -> Iterator[T]:
    """Yields the result of `work` on each task, in the order of the tasks.

    At most two tasks per worker are running or waiting. Memory therefore stays bounded, even with many tasks or a slow consumer.
    If `work` raises an error, the iterator raises it in place of the result. Tasks that have not started are cancelled after an
    error and when the iterator is closed.

    Args:
        work: Called in a worker thread.
        tasks: Iterated in the calling thread.
        workers: Number of threads. None means one per processor, but at most 16, because only decoding releases the interpreter
            lock.
    """
    count = usable_processors(16) if workers is None else max(1, workers)
    executor = ThreadPoolExecutor(count, thread_name_prefix="crossroads-images")
    waiting: deque[Future[T]] = deque()
    try:
        for task in tasks:
            waiting.append(executor.submit(work, task))
            if len(waiting) >= 2 * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def map_chunks(work: Callable[[range], T], rows: int, *, chunk: int, workers: int | None = None) -> Iterator[T]:
    """Yields the result of `work` on each range of `chunk` row numbers below `rows`, in order."""
    ranges = (range(start, min(start + chunk, rows)) for start in range(0, rows, chunk))
    return map_ordered(work, ranges, workers=workers)
