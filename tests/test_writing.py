"""Files written whole: what stands at the target, races, left-overs, and targets of other kinds."""

import errno
import os
import re
import socket
import stat
import threading
from pathlib import Path
from unittest import mock

import pytest

from fa_hific_jax import streams, writing
from fa_hific_jax.errors import UserError
from fa_hific_jax.writing import TargetExists, whole_file, whole_path, write, write_folder


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """An empty folder that was not looked through for left-overs."""
    monkeypatch.setattr(writing, "_swept", set())
    monkeypatch.chdir(tmp_path)


def names(folder=".") -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def content(folder=".") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def failing(monkeypatch, owner, function: str, number: int) -> None:
    """Lets a function of the system raise an OSError of this number."""

    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(owner, function, fail)


def test_two_containers_with_the_same_process_id_never_share_a_name(monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with whole_file("a") as first, whole_file("a") as second:
        first.write(b"first, longer")
        second.write(b"second")
    assert content() == {"a": b"first, longer"}  # the last to end


@pytest.mark.parametrize("mode", [0o400, 0o755])
def test_a_replaced_file_keeps_its_permissions_and_is_private_while_it_is_written(mode):
    Path("a").touch()
    os.chmod("a", mode)
    with whole_path("a") as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        temporary.write_bytes(b"after")
    assert content() == {"a": b"after"} and stat.S_IMODE(os.stat("a").st_mode) == mode


@pytest.mark.parametrize("replace", [True, False])
def test_a_new_file_has_the_permissions_of_the_umask(replace):
    before = os.umask(0o027)
    try:
        write("a", b"new", replace=replace)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat("a").st_mode) == 0o640


def test_a_link_stays_and_its_target_is_replaced():
    Path("deep").mkdir()
    Path("deep/real").write_bytes(b"before")
    Path("middle").symlink_to("deep/real")
    Path("link").symlink_to("middle")
    write("link", b"after")
    assert Path("link").is_symlink() and Path("deep/real").read_bytes() == b"after"
    Path("dangling").symlink_to("deep/new")
    write("dangling", b"new")
    assert Path("dangling").is_symlink() and Path("deep/new").read_bytes() == b"new"
    assert names("deep") == ["new", "real"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_nothing_is_told_with_the_name_of_the_target(monkeypatch, number):
    with monkeypatch.context() as full, pytest.raises(OSError, match="'a'") as error:
        failing(full, os, "fsync", number)
        write("a", b"new")
    assert error.value.errno == number
    for function in ("fsync", "mkdir"):
        with monkeypatch.context() as full, pytest.raises(OSError, match="'model'") as error:
            failing(full, os, function, number)
            write_folder("model", {"weights": b"new"})
        assert error.value.errno == number
    assert names() == []


def test_a_file_in_the_place_of_a_folder_is_named():
    Path("a").touch()
    with pytest.raises(NotADirectoryError, match="is not a folder: 'a'"):
        write("a/b", b"new")


def test_an_error_leaves_what_was_there():
    Path("a").write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt), whole_file("a") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert content() == {"a": b"before"}


@pytest.mark.parametrize("links", [True, False])
def test_without_replace_the_second_of_two_writers_is_refused(monkeypatch, links):
    if not links:  # as on FAT and some network file systems
        failing(monkeypatch, os, "link", errno.EPERM)
    refused = pytest.raises(TargetExists, match="^a: exists already: give --force")
    with refused, whole_file("a", replace=False) as second:
        second.write(b"second")
        write("a", b"first", replace=False)
    with pytest.raises(TargetExists):
        write("a", b"third", replace=False)
    assert content() == {"a": b"first"}


@pytest.mark.parametrize("length, reason", [(3, errno.EBUSY), (30, errno.EPERM), (3, errno.EACCES)])
def test_a_mounted_foreign_or_enclosed_file_is_overwritten_in_place(monkeypatch, length, reason):
    Path("a").write_bytes(b"b" * 10)
    inode = os.stat("a").st_ino
    if reason == errno.EACCES:  # The folder cannot be written to, the file can.
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) == Path("a"))
    failing(monkeypatch, os, "replace", reason)
    write("a", b"c" * length)
    assert content() == {"a": b"c" * length} and os.stat("a").st_ino == inode


def test_where_overwriting_in_place_fails_the_new_content_is_kept(monkeypatch):
    Path("a").write_bytes(b"before")
    failing(monkeypatch, os, "replace", errno.EBUSY)
    failing(monkeypatch, writing.shutil, "copyfileobj", errno.ENOSPC)
    with pytest.raises(UserError, match="overwriting it in place failed") as error:
        write("a", b"after")
    match = re.search(r"take the complete new content from (\S+)$", str(error.value))
    assert match and Path(match[1]).read_bytes() == b"after"


def test_a_device_and_a_pipe_are_written_to_and_stay(monkeypatch):
    write("/dev/null", b"gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(OSError, match="No space left"):
        write("/dev/full", b"too much")
    os.mkfifo("pipe")
    Path("link").symlink_to("pipe")
    for name in ("pipe", "link"):
        got = []
        reader = threading.Thread(target=lambda got=got: got.append(Path("pipe").read_bytes()))
        reader.start()
        write(name, b"x" * 200_000, replace=name == "link")
        reader.join(timeout=10)
        assert got == [b"x" * 200_000]
    assert stat.S_ISFIFO(os.stat("pipe").st_mode) and names() == ["link", "pipe"]
    monkeypatch.setattr(streams, "_READER_SECONDS", 0.0)
    with pytest.raises(OSError, match="no program has opened this pipe"):
        write("pipe", b"nobody reads")


def test_standard_output_and_open_descriptors_are_written_to(capfdbinary):
    write(streams.STDOUT, b"\x00first")
    write("/dev/fd/1", b", second")
    assert capfdbinary.readouterr().out == b"\x00first, second"
    with open("log", "wb") as file:
        file.write(b"head ")
        file.flush()
        write(f"/dev/fd/{file.fileno()}", b"body")
    assert Path("log").read_bytes() == b"head body"


def test_a_terminal_is_recognized():
    main, terminal = os.openpty()
    assert streams.is_terminal(os.ttyname(terminal)) and streams.is_terminal(f"/dev/fd/{terminal}")
    assert not streams.is_terminal("/dev/null") and not streams.is_terminal("absent")
    os.close(main)
    os.close(terminal)


def test_a_socket_is_refused():
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(UserError, match="^socket: is neither a file nor a pipe"):
            write("socket", b"data")
    assert stat.S_ISSOCK(os.stat("socket").st_mode)


def test_only_left_overs_without_a_change_for_a_day_are_removed():
    now = Path("clock")
    now.touch()
    for name, hours in ((".fa-hific-old.tmp", 25), (".fa-hific-young.tmp", 23), (".other.tmp", 99)):
        Path(name).touch()
        os.utime(name, times=(0, now.stat().st_mtime - hours * 3600))
    Path(".fa-hific-folder.tmp").mkdir()
    Path(".fa-hific-folder.tmp/weights").touch()
    os.utime(".fa-hific-folder.tmp", times=(0, 0))
    write("a", b"new")
    assert names() == [".fa-hific-young.tmp", ".other.tmp", "a", "clock"]


def test_a_cloud_path_is_written_directly():
    path = mock.MagicMock(__str__=lambda self: "gs://bucket/run.json")
    write(path, b"{}")
    path.write_bytes.assert_called_with(b"{}")
    assert names() == []


FILES = {"weights": b"new", "model.json": b"new id"}


def test_a_folder_replaces_another_whole_and_keeps_its_link_and_mode():
    Path("real").mkdir()
    Path("real").chmod(0o700)
    Path("real/old").touch()
    Path("link").symlink_to("real")
    with pytest.raises(TargetExists):
        write_folder("link", FILES)
    write_folder("link", FILES, replace=True)
    assert content("real") == FILES and Path("link").is_symlink()
    assert stat.S_IMODE(os.stat("real").st_mode) == 0o700 and names() == ["link", "real"]


def test_a_mount_point_with_files_is_filled_with_replace_alone(monkeypatch):
    Path("a").mkdir()
    Path("a/notes").touch()
    failing(monkeypatch, Path, "rename", errno.EBUSY)
    with pytest.raises(TargetExists):
        write_folder("a", FILES)
    assert names("a") == ["notes"]


@pytest.mark.parametrize(("mounted", "replace"), [(False, False), (True, False), (True, True)])
def test_an_empty_folder_and_a_mount_point_are_filled(monkeypatch, mounted, replace):
    Path("a").mkdir()
    if mounted:
        failing(monkeypatch, Path, "rename", errno.EBUSY)
    if replace:
        Path("a/training").write_bytes(b"old")
        Path("a/model.json").write_bytes(b"old id")
    write_folder("a", FILES, replace=replace)
    assert content("a") == FILES and names() == ["a"]


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(monkeypatch):
    Path("a").mkdir()
    Path("a/old").write_bytes(b"old")
    real = Path.rename

    def rename(self, target):
        if self.name.startswith(writing.PREFIX):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="Input/output"):
        write_folder("a", FILES, replace=True)
    assert content("a") == {"old": b"old"} and names() == ["a"]


def test_file_systems_that_cannot_wait_are_written_to_and_broken_ones_are_not(monkeypatch):
    failing(monkeypatch, os, "fsync", errno.EINVAL)
    write("a", b"1")
    failing(monkeypatch, os, "fsync", errno.EIO)
    with pytest.raises(OSError, match="a"):
        write("a", b"2")
    assert content() == {"a": b"1"}
