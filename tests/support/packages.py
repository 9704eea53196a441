"""Tiny wheels, and a package index on loopback that counts what it is asked."""

from __future__ import annotations

import base64
import hashlib
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def write_wheel(
    folder: Path,
    name: str,
    version: str,
    *,
    requires: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
    scripts: Mapping[str, str] | None = None,
    tag: str = "py3-none-any",
) -> Path:
    """A wheel of one module `name` with `__version__`, and what else is given; equal arguments give equal bytes."""
    information = f"{name}-{version}.dist-info"
    contents = {f"{name}.py": f"__version__ = {version!r}\n", **(files or {})}
    contents[f"{information}/METADATA"] = "\n".join(
        ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {one}" for one in requires), ""]
    )
    contents[f"{information}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n"
    if scripts:
        lines = "\n".join(f"{script} = {target}" for script, target in scripts.items())
        contents[f"{information}/entry_points.txt"] = f"[console_scripts]\n{lines}\n"
    record = "".join(f"{path},sha256={_digest(text)},{len(text.encode())}\n" for path, text in contents.items())
    contents[f"{information}/RECORD"] = f"{record}{information}/RECORD,,\n"
    path = folder / f"{name}-{version}-{tag}.whl"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in contents.items():
            archive.writestr(zipfile.ZipInfo(member), text)
    return path


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


class CountingIndex:
    """A package index (PEP 503) over a folder of wheels. `requests` are the paths that were asked for, in order; nothing is
    answered until `hold` is set, nor well while it `is_down`."""

    def __init__(self, *, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.requests: list[str] = []
        self.hold = threading.Event()
        self.hold.set()
        self.is_down = False

    def page(self, project: str) -> str | None:
        wheels = [path for path in sorted(self.folder.iterdir()) if path.name.partition("-")[0].replace("_", "-") == project]
        if not wheels:
            return None
        links = [
            f'<a href="/files/{one.name}#sha256={hashlib.sha256(one.read_bytes()).hexdigest()}">{one.name}</a>' for one in wheels
        ]
        return f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>"


@contextmanager
def serve_index(folder: Path) -> Iterator[CountingIndex]:
    """Serve the wheels of `folder` (read anew for each request) until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.requests.append(self.path)
            index.hold.wait(60)
            if index.is_down:
                self.send_error(503)
                return
            kind, _, name = self.path.strip("/").partition("/")
            if kind == "files" and (folder / name).is_file():
                self._answer((folder / name).read_bytes(), "application/octet-stream")
            elif kind == "simple" and (page := index.page(name.strip("/"))) is not None:
                self._answer(page.encode(), "text/html")
            else:
                self.send_error(404)

        def do_HEAD(self) -> None:
            self.do_GET()

        def _answer(self, data: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that was killed leaves a broken pipe."""

    server = Server(("127.0.0.1", 0), Handler)
    index = CountingIndex(folder=folder, url=f"http://127.0.0.1:{server.server_port}/simple")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield index
    finally:
        index.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()
