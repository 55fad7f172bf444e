"""A local file server that can drop a connection, refuse a request, or send another file."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Serves files by name. The first `breaks` answers stop half-way. If `ranges` is True, a download can be resumed."""

    def __init__(self, files, *, status=200, breaks=0, ranges=True, lengths=True):
        self.files, self.status, self.breaks, self.ranges, self.lengths = files, status, breaks, ranges, lengths
        self.asked = []
        self.address = ""


@contextmanager
def serving(files, **options):
    """Runs a `Server` inside the context."""
    state = Server(files, **options)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            raw = state.files.get(self.path.lstrip("/"))
            first = int((self.headers.get("Range") or "bytes=0-")[6:-1]) if state.ranges else 0
            state.asked.append((self.path, first))
            status = 404 if raw is None else state.status
            if status == 200 and first:
                status = 206 if first < len(raw) else 416
            self.send_response(status)
            if status == 206:
                self.send_header("Content-Range", f"bytes {first}-{len(raw) - 1}/{len(raw)}")
            body = raw[first:] if status in (200, 206) else b""
            if state.lengths:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if state.breaks:
                state.breaks -= 1
                body = body[: len(body) // 2]
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    state.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
