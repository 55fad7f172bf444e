"""Mapping in threads keeps the order, reads only a little ahead, and ends with the first error."""

from __future__ import annotations

import pytest

from crossroads.data._pool import map_chunks, map_ordered


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_tasks(workers: int) -> None:
    assert list(map_ordered(lambda n: n * n, iter(range(50)), workers=workers)) == [n * n for n in range(50)]
    assert list(map_chunks(list, 10, chunk=4, workers=workers)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert list(map_chunks(list, 0, chunk=4, workers=workers)) == []


def test_tasks_are_read_only_a_little_ahead() -> None:
    tasks = iter(range(10**9))
    results = map_ordered(lambda n: n, tasks, workers=2)
    assert [next(results) for _ in range(10)] == list(range(10))
    assert next(tasks) < 20


def test_an_error_is_raised_in_place_of_its_result_and_ends_the_work() -> None:
    done = []

    def work(n: int) -> int:
        done.append(n)
        return 1 // (5 - n)

    results = map_ordered(work, range(1000), workers=2)
    with pytest.raises(ZeroDivisionError):
        list(results)
    assert len(done) < 20


def test_an_error_of_the_task_iterator_reaches_the_consumer() -> None:
    def broken():  # type: ignore[no-untyped-def]
        yield 1
        raise KeyError("tasks")

    with pytest.raises(KeyError, match="tasks"):
        list(map_ordered(lambda n: n, broken()))
