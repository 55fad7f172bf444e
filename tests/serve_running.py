"""Runs `crossroads serve` in a process of its own, for tests of the whole server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Running:
    """A running server.

    Attributes:
        address: Such as ``http://127.0.0.1:40001``.
        lines: What it has written so far.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self.address = ""
        self._open = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._open.wait(120) or not self.address:
            process.kill()
            raise RuntimeError("".join(self.lines) or "the server did not start")

    def _read(self) -> None:
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.match(r"open (http://\S+)", line):
                self.address = found[1]
                self._open.set()
        self._open.set()

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def memory_mb(self) -> float:
        """Returns the resident memory."""
        import psutil

        return psutil.Process(self.process.pid).memory_info().rss / 2**20

    def stop(self, how: int = signal.SIGTERM) -> int:
        """Sends a signal and returns the exit code."""
        self.process.send_signal(how)
        code = self.process.wait(60)
        self._reader.join(10)
        return code


@contextmanager
def running(*arguments: str | Path, **environment: str) -> Iterator[Running]:
    """Starts `crossroads serve` on a free port, and stops it at the end."""
    command = [sys.executable, "-m", "crossroads", "serve", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.PIPE, text=True)
    try:
        yield Running(process)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
        process.stderr.close()
