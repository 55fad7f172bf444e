"""Work on many rows in a few threads, in order and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from crossroads._runtime.machine import usable_processors

T = TypeVar("T")
Task = TypeVar("Task")


def map_ordered(work: Callable[[Task], T], tasks: Iterable[Task], *, workers: int | None = None) -> Iterator[T]:
    """`work` on each task, results in the order of the tasks.

    At most two tasks a worker are under way or waiting, so memory stays bounded however many tasks there are and however slow the
    consumer is. An error in `work` is raised here, where its result would have come; tasks not yet started are then dropped, as
    they are when the iterator is closed.

    Args:
        work: Called in a worker thread.
        tasks: Gone through in the calling thread.
        workers: Threads; None for one a processor, 16 at most: decoding releases the interpreter lock, the rest does not.
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
    """`map_ordered` over runs of `chunk` row numbers, up to `rows`."""
    runs = (range(start, min(start + chunk, rows)) for start in range(0, rows, chunk))
    return map_ordered(work, runs, workers=workers)
