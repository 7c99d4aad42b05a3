"""A stand-in for the Hugging Face hub, and for what its libraries leave in their cache."""

import hashlib
import http.server
import io
import json
import urllib.parse
from pathlib import Path


def parquet(columns):
    """The bytes of a parquet file with these columns."""
    import pyarrow
    import pyarrow.parquet

    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), stream)
    return stream.getvalue()


def fill_cache(root, files, repository, revision="main", commit="c" * 40):
    """The layout that the hub's libraries leave in their cache."""
    store = Path(root) / f"datasets--{repository.replace('/', '--')}"
    for path, data in files.items():
        target = store / "snapshots" / commit / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    (store / "refs" / revision).parent.mkdir(parents=True, exist_ok=True)
    (store / "refs" / revision).write_text(commit)


class StandIn(http.server.BaseHTTPRequestHandler):
    """The few answers of the hub that a download asks for."""

    files: dict[str, bytes]
    asked: list[str]

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = urllib.parse.unquote(self.path.split("?")[0])
        self.asked.append(path)
        commit, status, body = "d" * 40, 200, b"{}"
        if "/revision/" in path:
            body = json.dumps({"id": "x", "sha": commit, "siblings": []}).encode()
        elif "/tree/" in path:
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": "0" * 40}
                for name, data in self.files.items()
            ]
            body = json.dumps(entries).encode()
        elif "/resolve/" in path:
            body = self.files[path.split(f"/resolve/{commit}/")[1]]
        elif path != "/":
            status = 404
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
