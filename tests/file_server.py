"""A local HTTP server of a folder's files, which can break off and lack features as servers do."""

import contextlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path


class FileServer(http.server.ThreadingHTTPServer):
    """Serves the files of `folder`, whole or from the byte that a client asks for."""

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[str | None] = []  # the range of each request
        self.knows_ranges = self.tells_length = True
        self.sends_at_most = 1 << 30  # bytes, after which the connection breaks
        self.gate = threading.Event()  # shut, a connection stays open after its last byte
        self.gate.set()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, asked = self.server, self.headers.get("Range")
        server.asked.append(asked)
        path = server.folder / self.path.partition("?")[0].strip("/")
        if not path.is_file():
            self.send_error(404)
            return
        content, first = path.read_bytes(), 0
        if asked and server.knows_ranges:
            first = int(asked.removeprefix("bytes=").removesuffix("-"))
        if first >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if first else 200)
        if server.tells_length:
            self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        self.wfile.write(content[first : first + server.sends_at_most])
        self.wfile.flush()
        server.gate.wait(10)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(folder: Path, monkeypatch) -> Iterator[FileServer]:
    """A server of a new folder, reached without a proxy."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder.mkdir()
    with FileServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.gate.set()
        server.shutdown()
        thread.join()
