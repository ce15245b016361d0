"""Downloads: resumed after a broken connection, held to their hash, kept in the cache folder."""

import fcntl
import functools
import hashlib
import re
import socket
from pathlib import Path

import numpy as np
import pytest
from file_server import serving

from fa_hific_jax.cache import cache_folder
from fa_hific_jax.convert.download import check_sha256
from fa_hific_jax.convert.download import download as download_or_advise
from fa_hific_jax.errors import UserError

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
download = functools.partial(download_or_advise, offline="bring it")


@pytest.fixture
def server(tmp_path, monkeypatch):
    with serving(tmp_path / "published", monkeypatch) as found:
        (found.folder / "file.pth").write_bytes(CONTENT)
        yield found


@pytest.fixture
def url(server) -> str:
    return f"{server.url}/file.pth"


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


def test_a_file_is_downloaded_once_and_again_when_it_is_damaged(server, url, path, capsys):
    download(url, path, SHA256)
    assert only_file(path) == CONTENT
    assert re.match(
        r"file.pth  0.30 of 0.30 MB at [\d.]+ MB/s, 0 s left *\n", capsys.readouterr().err
    )
    download(url, path, SHA256)
    assert server.asked == [None]
    path.write_bytes(CONTENT[:-1])
    download(url, path, SHA256)
    assert only_file(path) == CONTENT


def test_two_processes_do_not_append_to_the_same_part(server, url, path, part):
    with open(part, "wb") as file:
        file.write(CONTENT[:1000])
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is downloading it: run again"):
            download(url, path, SHA256)
    assert server.asked == [] and only_file(part) == CONTENT[:1000]
    download(url, path, SHA256)
    assert only_file(path) == CONTENT


def test_a_broken_connection_is_told_and_resumed(server, url, path, part):
    server.sends_at_most = 123_456
    sentence = f"broke (after 0.12 of 0.30 MB): {part} is kept, run the command again to resume"
    with pytest.raises(UserError, match=re.escape(sentence)):
        download(url, path, SHA256)
    assert only_file(part) == CONTENT[:123_456]
    server.sends_at_most = len(CONTENT)
    download(url, path, SHA256)
    assert server.asked == [None, "bytes=123456-"]
    assert only_file(path) == CONTENT


def test_a_silent_server_counts_as_a_broken_connection(server, url, path, part):
    server.gate.clear()
    server.sends_at_most = 200_000
    with pytest.raises(UserError, match=r"the connection broke \(timed out\): .* to resume"):
        download(url, path, SHA256, timeout=0.2)
    assert CONTENT.startswith(part.read_bytes())


@pytest.mark.parametrize(
    ("knows_ranges", "tells_length", "before"),
    [(False, True, bytes(32)), (False, False, bytes(32)), (True, True, CONTENT)],
    ids=["no ranges", "no ranges, no length", "nothing is lacking"],
)
def test_a_part_becomes_the_file(server, url, path, part, knows_ranges, tells_length, before):
    server.knows_ranges, server.tells_length = knows_ranges, tells_length
    part.write_bytes(before)
    download(url, path, SHA256)
    assert server.asked == [f"bytes={len(before)}-"]
    assert only_file(path) == CONTENT


@pytest.mark.parametrize("before", [b"", b"of another file", bytes(len(CONTENT) + 5)])
def test_a_wrong_hash_removes_what_came(url, path, part, before):
    part.write_bytes(before)
    expected = SHA256 if before else "0" * 64
    with pytest.raises(UserError, match=f"was removed again, because {part}: has the SHA-256"):
        download(url, path, expected)
    assert list(path.parent.iterdir()) == []


def test_a_server_that_does_not_give_the_file_is_named(url, path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}/file.pth"
        for address, sentence in {
            f"{url}h": "/file.pthh: the server answers 404 Not Found: bring it$",
            closed: r"file.pth: cannot be reached \(.*refused\): bring it$",
        }.items():
            with pytest.raises(UserError, match=sentence):
                download(address, path, SHA256)
            assert list(path.parent.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(url, path):
    path.parent.write_bytes(b"")
    sentence = r"cache.*: cannot be written \((File exists|Not a directory)\): free space, or name"
    with pytest.raises(UserError, match=sentence):
        download(url, path, SHA256)


def test_local_files_are_held_to_their_hash(tmp_path):
    path = tmp_path / "file.pth"
    with pytest.raises(UserError, match="file.pth: cannot be read: No such file or directory"):
        check_sha256(path, SHA256)
    path.write_bytes(CONTENT)
    assert check_sha256(path, SHA256) == check_sha256(path, None) == SHA256
    with pytest.raises(UserError, match=f"file.pth: has the SHA-256 {SHA256} instead of 00"):
        check_sha256(path, "00")


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "home/.cache"),
        ("linux", {"XDG_CACHE_HOME": "{}/xdg"}, "xdg"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "home/.cache"),
        ("darwin", {}, "home/Library/Caches"),
        ("win32", {"LOCALAPPDATA": "{}/local"}, "local"),
    ],
)
def test_downloads_are_kept_where_the_system_keeps_caches(
    monkeypatch, tmp_path, platform, variables, expected
):
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(tmp_path))
    assert cache_folder() == tmp_path / expected / "fa-hific"


def test_without_home_the_variable_to_set_is_named(monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(UserError, match="no home folder for downloads: set XDG_CACHE_HOME"):
        cache_folder()
