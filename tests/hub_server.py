"""A local server that speaks as much of the Hugging Face hub's API as a download needs."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


class Hub:
    """Repositories, each with its revisions in order of time, and what was asked for.

    `commit` adds a revision of a repository. `asked` lists method and path of every request. A repository in `gated` shows its list
    of files only. While `status` is set, every answer has that status.
    """

    def __init__(self):
        self.repositories, self.names = {}, {}
        self.asked, self.gated, self.status = [], set(), None
        self.address = ""

    def commit(self, repository, files, *names):
        """Adds a revision with these files (name to bytes) and names it ``main`` and by other names. Returns its hash."""
        number = len(self.repositories.setdefault(repository, {}))
        commit = hashlib.sha1(f"{repository} {number}".encode()).hexdigest()
        self.repositories[repository][commit] = dict(files)
        for name in ("main", *names, commit):
            self.names[repository, name] = commit
        return commit

    def fetched(self):
        """Returns the names of the files whose content was sent, and forgets all requests."""
        found = [
            path.split("/resolve/")[1].partition("/")[2] for method, path in self.asked if method == "GET" and "/resolve/" in path
        ]
        self.asked.clear()
        return found


@contextmanager
def serving():
    """Yields a `Hub` that is served at its `address`."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path))
        if self.hub.status is not None:
            return self.answer(self.hub.status, b"")
        listing = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path)
        if listing:
            return self.listed(*listing.groups())
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        return self.sent(*file.groups()) if file else self.answer(404, b"")

    def listed(self, repository, revision):
        commit = self.revision(repository, revision or "main")
        if commit is None:
            return None
        siblings = [{"rfilename": name} for name in self.hub.repositories[repository][commit]]
        content = {"id": repository, "sha": commit, "siblings": siblings}
        return self.answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def sent(self, repository, revision, name):
        commit = self.revision(repository, revision)
        if commit is None:
            return None
        if repository in self.hub.gated:
            return self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
        content = self.hub.repositories[repository][commit].get(name)
        if content is None:
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        digest = hashlib.sha256(content).hexdigest()
        return self.answer(200, content, {"ETag": f'"{digest}"', "X-Repo-Commit": commit})

    def revision(self, repository, name):
        if repository not in self.hub.repositories:
            self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif (repository, name) not in self.hub.names:
            self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        return self.hub.names.get((repository, name))

    def answer(self, status, content, headers=()):
        self.send_response(status)
        for key, value in dict(headers).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)
