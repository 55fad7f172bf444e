"""Sends requests over many connections at a time, from a process of its own, and notes how long each took.

`python -m benchmarks._load HOST PORT PATH CONNECTIONS SECONDS FILE…` prints JSON. Each connection stays open and sends the next
request once it has the answer. With ``--rate N``, requests begin at N a second in all, whether or not earlier ones are answered.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

BOUNDARY = "crossroads-load"
MOST = 512
"""Connections at a time with a fixed rate."""


class Answer(NamedTuple):
    """One request: its status, 0 where the connection broke and -1 where none could be opened, and its seconds."""

    status: int
    seconds: float


def form(name: str, field: str, data: bytes) -> bytes:
    """A form with one file."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\nContent-Type: image/jpeg\r\n\r\n'
    return head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


def request(host: str, path: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes) -> tuple[int, bool]:
    """Status of one request, and whether the connection stays open."""
    writer.write(message)
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    length, stays = 0, True
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
        elif line.startswith(b"connection:"):
            stays = b"close" not in line
    await reader.readexactly(length)
    return int(head[9:12]), stays


async def one_connection(host: str, port: int, messages: list[bytes], end: float, start: int, answers: list[Answer]) -> None:
    connection = None
    number = start
    while time.perf_counter() < end:
        began = time.perf_counter()
        try:
            connection = connection or await asyncio.open_connection(host, port)
        except OSError:
            answers.append(Answer(-1, time.perf_counter() - began))
            await asyncio.sleep(0.05)
            continue
        try:
            status, stays = await ask(*connection, messages[number % len(messages)])
        except (OSError, asyncio.IncompleteReadError):
            status, stays = 0, False
        answers.append(Answer(status, time.perf_counter() - began))
        if not stays:
            connection[1].close()
            connection = None
        if status == 503:
            await asyncio.sleep(0.01)
        number += 1
    if connection:
        connection[1].close()


async def closed_loop(host: str, port: int, messages: list[bytes], connections: int, seconds: float) -> list[Answer]:
    """As many requests at a time as there are connections."""
    answers: list[Answer] = []
    end = time.perf_counter() + seconds
    await asyncio.gather(*(one_connection(host, port, messages, end, n, answers) for n in range(connections)))
    return answers


async def open_loop(host: str, port: int, messages: list[bytes], rate: float, seconds: float) -> list[Answer]:
    """Requests at a fixed rate, each on a free connection of at most `MOST`. Times count from the moment that the rate sets."""
    answers: list[Answer] = []
    free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    faults: Counter[str] = Counter()

    room = asyncio.Semaphore(MOST)

    async def one(message: bytes, began: float) -> None:
        async with room:
            answers.append(await answer_to(message, began))

    async def answer_to(message: bytes, began: float) -> Answer:
        try:
            connection = free.pop() if free else await asyncio.open_connection(host, port)
            status, stays = await ask(*connection, message)
            if stays:
                free.append(connection)
            else:
                connection[1].close()
        except (OSError, asyncio.IncompleteReadError) as error:
            status = 0
            faults[type(error).__name__] += 1
        return Answer(status, time.perf_counter() - began)

    first, tasks = time.perf_counter(), []
    for number in range(int(rate * seconds)):
        due = first + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(messages[number % len(messages)], due)))
    await asyncio.gather(*tasks)
    print(dict(faults), file=sys.stderr)
    for _, writer in free:
        writer.close()
    return answers


def summary(answers: list[Answer], seconds: float) -> dict[str, object]:
    good = sorted(answer.seconds for answer in answers if answer.status == 200)
    points = statistics.quantiles(good, n=100, method="inclusive") if len(good) > 1 else [0.0] * 99
    return {
        "rate": len(good) / seconds,
        "p50_ms": 1000 * points[49],
        "p99_ms": 1000 * points[98],
        "statuses": dict(Counter(str(answer.status) for answer in answers)),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("connections", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--rate", type=float)
    parser.add_argument("--field", default="images")
    asked = parser.parse_args()
    messages = [request(asked.host, asked.path, form(path.name, asked.field, path.read_bytes())) for path in asked.files]
    began = time.perf_counter()
    if asked.rate:
        answers = asyncio.run(open_loop(asked.host, asked.port, messages, asked.rate, asked.seconds))
    else:
        answers = asyncio.run(closed_loop(asked.host, asked.port, messages, asked.connections, asked.seconds))
    print(json.dumps(summary(answers, time.perf_counter() - began)))


if __name__ == "__main__":
    main()
