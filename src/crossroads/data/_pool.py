"""Maps a function over many rows in a few threads, in order and in bounded memory."""

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

    At most two tasks per worker are running or waiting, so memory stays bounded however many tasks there are and however slow the
    consumer is. An error in `work` is raised in place of its result. Tasks that have not started are then dropped, as they are
    when the iterator is closed.

    Args:
        work: Called in a worker thread.
        tasks: Iterated in the calling thread.
        workers: Threads; None for one per processor, at most 16: only decoding releases the interpreter lock.
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
    """Yields the result of `work` on each range of `chunk` row numbers, up to `rows`, in order."""
    runs = (range(start, min(start + chunk, rows)) for start in range(0, rows, chunk))
    return map_ordered(work, runs, workers=workers)
