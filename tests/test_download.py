import fcntl
import hashlib
import http.server
import re
import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from fa_hific_jax.cache import cache_folder
from fa_hific_jax.convert.download import (
    Unreachable,
    check_sha256,
    download,
    progress_line,
)
from fa_hific_jax.errors import UserError

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT; the server's attributes say how it misbehaves."""

    def do_GET(self):
        server = self.server
        server.ranges.append(self.headers.get("Range"))
        if self.path != "/file.pth":
            self.send_error(404)
            return
        first = 0
        if server.knows_ranges and (asked := self.headers.get("Range")):
            first = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
        if first >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if first else 200)
        if server.tells_length:
            self.send_header("Content-Length", str(len(CONTENT) - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        self.wfile.write(CONTENT[first : first + server.sends_at_most])
        self.wfile.flush()
        server.gate.wait(10)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        found.knows_ranges = found.tells_length = True
        found.sends_at_most = len(CONTENT)
        found.ranges = []
        found.gate = threading.Event()  # shut, a connection stays open after its last byte
        found.gate.set()
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.gate.set()
        found.shutdown()
        thread.join()


@pytest.fixture
def url(server) -> str:
    return f"http://127.0.0.1:{server.server_port}/file.pth"


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "cache" / "file.pth"


@pytest.fixture
def part(path) -> Path:
    path.parent.mkdir()
    return path.with_name("file.pth.part")


def only_file(path: Path) -> bytes:
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    return path.read_bytes()


def test_a_file_arrives_whole_and_under_its_own_name_alone(server, url, path, capsys):
    download(url, path, SHA256)
    assert only_file(path) == CONTENT
    assert server.ranges == [None]
    assert re.match(r"file.pth  0.3 MB  [\d.]+ [kM]B/s\n", capsys.readouterr().err)


def test_two_processes_do_not_append_to_the_same_part(server, url, path, part):
    with open(part, "wb") as file:
        file.write(CONTENT[:1000])
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(
            UserError, match=r"file\.pth\.part: another process is downloading it: r"
        ):
            download(url, path, SHA256)
    assert server.ranges == [] and only_file(part) == CONTENT[:1000]
    download(url, path, SHA256)
    assert only_file(path) == CONTENT


def test_a_file_that_is_there_is_not_downloaded_again(server, url, path):
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    download(url, path, SHA256)
    assert server.ranges == []


def test_a_damaged_file_is_replaced(url, path):
    path.parent.mkdir()
    path.write_bytes(CONTENT[:-1])
    download(url, path, SHA256)
    assert only_file(path) == CONTENT


def test_a_broken_connection_is_told_and_resumed(server, url, path, part):
    server.sends_at_most = 123_456
    sentence = (
        f"{url}: the connection broke after 0.1 MB of 0.3 MB: {part} is kept, run the command "
        "again to resume"
    )
    with pytest.raises(UserError, match=re.escape(sentence)):
        download(url, path, SHA256)
    assert only_file(part) == CONTENT[:123_456]
    server.sends_at_most = len(CONTENT)
    download(url, path, SHA256)
    assert server.ranges == [None, "bytes=123456-"]
    assert only_file(path) == CONTENT


def test_a_silent_server_counts_as_a_broken_connection(server, url, path, part):
    server.gate.clear()
    server.sends_at_most = 200_000
    with pytest.raises(
        UserError, match=r"the connection broke \(timed out\): .* run the command again to res"
    ):
        download(url, path, SHA256, timeout=0.2)
    assert CONTENT.startswith(part.read_bytes())


@pytest.mark.parametrize("tells_length", [True, False])
def test_a_server_without_ranges_or_length_works(server, url, path, part, tells_length):
    server.knows_ranges, server.tells_length = False, tells_length
    part.write_bytes(b"from a connection that broke off")
    download(url, path, SHA256)
    assert server.ranges == ["bytes=32-"]
    assert only_file(path) == CONTENT


def test_a_part_that_lacks_nothing_becomes_the_file(url, path, part):
    part.write_bytes(CONTENT)
    download(url, path, SHA256)
    assert only_file(path) == CONTENT


@pytest.mark.parametrize("before", [b"", b"of another file", bytes(len(CONTENT) + 5)])
def test_a_wrong_hash_removes_what_came(url, path, part, before):
    part.write_bytes(before)
    expected = "0" * 64 if not before else SHA256
    found = hashlib.sha256(before + CONTENT[len(before) :]).hexdigest()
    sentence = (
        f"{url}: the download has the SHA-256 {found} instead of {expected}, so it is damaged or a "
        f"different file: {part} was removed, run the command again"
    )
    with pytest.raises(UserError, match=re.escape(sentence)):
        download(url, path, expected)
    assert list(path.parent.iterdir()) == []


def test_a_server_without_the_file_is_named(url, path):
    with pytest.raises(Unreachable, match=r"/file.pthh: the server answers 404 Not Found$"):
        download(f"{url}h", path, SHA256)
    assert list(path.parent.iterdir()) == []


def test_no_server_and_no_network_are_named(path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/file.pth"
        with pytest.raises(Unreachable, match=r"file.pth: cannot be reached \(.*refused\)$"):
            download(url, path, SHA256)
    with pytest.raises(Unreachable, match=r"http://no.invalid/file.pth: cannot be reached \(.+\)$"):
        download("http://no.invalid/file.pth", path, SHA256)


def test_a_folder_that_cannot_be_written_is_named(url, tmp_path):
    (tmp_path / "cache").write_bytes(b"")
    with pytest.raises(
        UserError, match="file.pth.part: cannot be written: (File exists|Not a directory)$"
    ):
        download(url, tmp_path / "cache" / "file.pth", SHA256)


def test_local_files_are_held_to_their_hash(tmp_path):
    path = tmp_path / "file.pth"
    with pytest.raises(UserError, match="file.pth: cannot be read: No such file or directory"):
        check_sha256(path, SHA256)
    path.write_bytes(CONTENT)
    check_sha256(path, SHA256)
    with pytest.raises(UserError, match=f"file.pth: has the SHA-256 {SHA256} instead of 00"):
        check_sha256(path, "00")


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "home/.cache"),
        ("linux", {"XDG_CACHE_HOME": "{}/xdg"}, "xdg"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "home/.cache"),
        ("linux", {"LOCALAPPDATA": "{}/local"}, "home/.cache"),
        ("darwin", {}, "home/Library/Caches"),
        ("darwin", {"XDG_CACHE_HOME": "{}/xdg"}, "xdg"),
        ("win32", {"LOCALAPPDATA": "{}/local"}, "local"),
        ("win32", {}, "home/.cache"),
    ],
)
def test_downloads_are_kept_where_the_system_keeps_caches(
    monkeypatch, tmp_path, platform, variables, expected
):
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
        if name in variables:
            monkeypatch.setenv(name, variables[name].format(tmp_path))
    assert cache_folder() == tmp_path / expected / "fa-hific"


def test_without_home_the_variable_to_set_is_named(monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(UserError, match="no home folder for downloads: set XDG_CACHE_HOME"):
        cache_folder()


@pytest.mark.parametrize(
    ("done", "total", "rate", "expected"),
    [
        (12e6, 244_408_911, 8.1e6, "a.pth  12.0 MB of 244.4 MB  8.1 MB/s  29 s left"),
        (12e6, 244_408_911, 1e6, "a.pth  12.0 MB of 244.4 MB  1.0 MB/s  3 min 52 s left"),
        (0, 6009, 0.0, "a.pth  0.0 kB of 6.0 kB  0.0 kB/s"),
        (6009, 6009, 5e4, "a.pth  6.0 kB  50.0 kB/s"),
        (12e6, None, 5e4, "a.pth  12.0 MB  50.0 kB/s"),
    ],
)
def test_progress_tells_rate_and_remaining_time(done, total, rate, expected):
    assert progress_line("a.pth", int(done), total, rate) == expected
