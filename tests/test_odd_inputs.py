"""Inputs, systems and shells that are not in order cost a sentence and never a file."""
# ruff: noqa: F811

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from command_line import (  # noqa: F401  (models: a fixture)
    ENV,
    animation,
    image,
    models,
    pixels_of,
    run,
    shell,
    written,
)
from cpu_devices import ROOT, python
from jax.experimental.compilation_cache import compilation_cache

from fa_hific_jax import errors
from fa_hific_jax.cli import files, runtime
from fa_hific_jax.data import image_names
from fa_hific_jax.data.sources import open_source
from fa_hific_jax.errors import UserError

# Names.


def test_names_are_shown_without_what_a_terminal_would_obey():
    assert errors.shown("plain é 写真.png") == "plain é 写真.png"
    assert errors.shown("a\x1b[2Jb\nc\td\u202e") == "a\\x1b[2Jb\\nc\\td\\u202e"


def test_names_that_no_terminal_shows_are_coded_listed_and_escaped(models, capsys):
    image("a.png")
    os.rename(b"a.png", b"\xff.png")
    Path("a\x1b[31m\n.png").write_bytes(b"no image")
    assert run("compress", ".") == 1
    said = capsys.readouterr().err
    assert "error: a\\x1b[31m\\n.png: " in said and "\x1b" not in said
    assert b"\\xff.fahj" in shell("{} info .").stdout


def test_a_name_that_is_too_long_is_one_sentence(models, capsys):
    for name in ("x" * 300 + ".png", "dir/" * 1500 + "a.png"):
        assert run("compress", name) == 1
        said = capsys.readouterr().err
        assert "File name too long" in said and said.count("\n") == 1


def test_a_file_that_looks_like_an_option_can_be_named(models):
    image("-o.png")
    assert run("compress", "./-o.png") == run("compress", "--force", "--", "-o.png") == 0


# Which files are images.


def test_compressing_training_and_evaluating_find_the_same_files(tmp_path):
    for number, suffix in enumerate(sorted(image_names.suffixes())):
        (tmp_path / f"{number}{suffix.upper()}").touch()
    (tmp_path / "b.txt").touch()
    found = [file.path for file in files.find([str(tmp_path)], image_names.suffixes())[0]]
    assert sorted(path.stem for path in found) == sorted(open_source(str(tmp_path)).names)
    kinds = {path.suffix.lower() for path in found}
    assert {".avif", ".gif", ".jp2", ".jfif"} <= kinds and ".txt" not in kinds


def test_images_that_need_a_plug_in_are_counted_and_named_without_it(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(image_names, "_is_installed", lambda module: False)
    image(tmp_path / "a.png")
    for name in ("b.heic", "c.HEIC", "d.jxl", "e.cr2", "notes.txt"):
        (tmp_path / name).touch()
    counted = "4 files left out: .cr2 cannot be read, .heic needs pillow-heif, .jxl needs"
    found, unread = files.find([str(tmp_path)], image_names.suffixes())
    assert [file.path.name for file in found] == ["a.png"] and not unread
    assert counted in capfd.readouterr().err
    assert open_source(str(tmp_path)).names == ["a"]
    assert counted in capfd.readouterr().err
    monkeypatch.setattr(image_names, "_is_installed", lambda module: module == "pillow_heif")
    assert {".heic", ".heif"} <= image_names.suffixes() and ".jxl" not in image_names.suffixes()


@pytest.mark.parametrize(
    ("name", "inputs", "named"),
    [
        ("in/locked/b.png", ["in"], "in/locked"),
        ("in/listed/b.png", ["in"], "in/listed"),
        ("in/locked.png", ["in"], "in/locked.png"),
        ("closed/b.png", ["closed/b.png", "in/a.png"], "closed/b.png"),
    ],
)
def test_what_may_not_be_read_is_named_and_the_rest_is_done(
    models, monkeypatch, capsys, name, inputs, named
):
    def refuse(owner, function, refused):
        real = getattr(owner, function)

        def call(path=".", *args, **kwargs):  # Root would be let in.
            if isinstance(path, str | os.PathLike) and refused(os.fspath(path)):
                raise PermissionError(13, "Permission denied", os.fspath(path))
            return real(path, *args, **kwargs)

        monkeypatch.setattr(owner, function, call)

    refuse(os, "scandir", lambda path: path.endswith("locked"))
    refuse(Path, "open", lambda path: path.endswith("locked.png"))
    refuse(os, "stat", lambda path: path.startswith("closed/"))
    access = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: "listed" not in str(p) and access(p, mode))
    image("in/a.png")
    image(name)
    assert run("compress", *inputs, "-o", "out") == 1
    assert written("out") == ["a.fahj"]
    assert f"error: {named}: Permission denied\n" in capsys.readouterr().err


# Shells and standard streams.


@pytest.mark.parametrize(
    ("line", "code", "sentence"),
    [
        ("rmdir ../gone; {} compress ../a.png", 2, "the current folder has been deleted: change"),
        ("{} compress - -o b.fahj <&-", 1, "/dev/stdin: standard input is closed"),
        ("{} compress ../a.png -o - >&-", 1, "standard output is closed"),
        ("{} info ../in/a.fahj >/dev/full", 1, "standard output: No space left on device"),
        ("{} compress - </dev/null", 1, "error: /dev/stdin: cannot be read as an image"),
    ],
)
def test_what_is_wrong_with_the_surroundings_is_one_sentence(models, line, code, sentence):
    image("a.png")
    run("compress", "a.png", "-o", "in/")
    Path("gone").mkdir()
    done = shell(line, cwd="gone")
    assert done.returncode == code and done.stdout == b""
    assert sentence in done.stderr.decode() and done.stderr.count(b"\n") == 1
    assert written() == ["a.png", "in/a.fahj"]


@pytest.mark.parametrize("redirected", ["2>&-", "2>/dev/full"])
def test_a_closed_or_full_standard_error_costs_no_file(tmp_path, redirected):
    animation(tmp_path / "a.gif")
    assert shell(f"{{}} compress a.gif {redirected}", cwd=tmp_path).returncode == 0
    assert written(tmp_path) == ["a.fahj", "a.gif"]


@pytest.mark.parametrize(
    "command",
    [
        ["tests/fake_model.py", "compress", "--help"],
        pytest.param(["-m", "fa_hific_jax", "eval", "--helpfull"], marks=pytest.mark.long),
    ],
)
def test_a_reader_of_the_output_that_has_gone_ends_it_in_silence(command):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as gone:
        streams = {"stdout": gone, "stderr": subprocess.PIPE}
        done = subprocess.run([sys.executable, *command], env=ENV, cwd=ROOT, timeout=120, **streams)
    assert (done.returncode, done.stderr) == (141, b"")


def test_the_pipe_that_a_shell_substitutes_is_read_once(models, capsys):
    pixels = image("a.png", 5, 7)
    for source, *arguments in (
        ("a.png", "compress", "-o", "b.fahj"),
        ("b.fahj", "decompress", "-o", "c.png"),
        ("b.fahj", "info"),
    ):
        read, write = os.pipe()
        os.write(write, Path(source).read_bytes())  # less than a pipe holds
        os.close(write)
        assert run(*arguments, f"/dev/fd/{read}") == 0
        os.close(read)
    assert "7 x 5 pixels" in capsys.readouterr().out
    np.testing.assert_array_equal(pixels_of("c.png"), pixels)


# Python drops an exception that is raised in a callback of the garbage collector.
LOST = """
import gc, os, signal, time
from fa_hific_jax import interrupts

def lose(phase, info):
    gc.callbacks.remove(lose)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)

signal.signal(signal.SIGINT, signal.default_int_handler)
with interrupts.interruptible():
    gc.callbacks.append(lose)
    gc.collect()
    print("lost", flush=True)
    interrupts.end_if_asked()
    print("went on")
"""


def test_an_interrupt_that_a_callback_loses_still_ends_the_command():
    done = python("-c", LOST)
    assert (done.returncode, done.stdout, done.stderr) == (130, "lost\n", "")


# Environment and errors.


@pytest.mark.long
@pytest.mark.parametrize("platform", ["cuda", "tpu", "nonsense"])
def test_a_device_that_this_machine_lacks_is_one_sentence(platform):
    code = "from fa_hific_jax.errors import reported\nwith reported(): import jax; jax.devices()"
    variables = {"JAX_PLATFORMS": platform, "CUDA_VISIBLE_DEVICES": "", "TPU_SKIP_MDS_QUERY": "1"}
    done = python("-c", code, **variables)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith(f"error: JAX_PLATFORMS is '{platform}', but JAX finds no such")


REFUSED = ", which JAX does not accept: unset that variable"


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (UserError("give another"), 2, "give another\n"),
        (OSError(28, "No space left on device", "/x/y"), 1, "/x/y: No space left on device"),
        (MemoryError(), 1, "not enough memory"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), 1, "not enough memory"),
        (
            ValueError("invalid truth value 'maybe' for environment 'JAX_ENABLE_X64'"),
            2,
            f"JAX_ENABLE_X64 is 'maybe'{REFUSED}",
        ),
        (
            ValueError('Invalid value "x" for JAX flag jax_default_prng_impl'),
            2,
            f"JAX_DEFAULT_PRNG_IMPL is 'x'{REFUSED}",
        ),
    ],
)
def test_errors_that_are_no_bugs_are_one_sentence(capsys, error, code, sentence):
    with pytest.raises(SystemExit) as ended, errors.reported():
        raise error
    out, err = capsys.readouterr()
    assert ended.value.code == code and err.startswith(f"error: {sentence}")
    assert out == "" and err.count("\n") == 1


# The cache of compiled programs.


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The place of compiled programs of a user whose cache folder is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update(names[0], None)
    compilation_cache.reset_cache()
    yield tmp_path / "fa-hific" / "jax"
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_a_cache_folder_is_left_as_the_user_has_chosen_it_or_missed_where_it_cannot_be(cache):
    cache.parent.write_bytes(b"a file in the place of the folder")
    for told in (None, "elsewhere"):
        jax.config.update("jax_compilation_cache_dir", told)
        runtime.use_compile_cache()
        assert jax.config.jax_compilation_cache_dir == told


def test_every_program_is_kept_and_one_whose_entry_is_damaged_is_compiled_and_kept_again(cache):
    def compiled() -> list[Path]:
        with runtime.orderly():
            runtime.use_compile_cache()
            assert np.asarray(jax.jit(lambda x: 3 * x + 1)(np.float32(2))) == 7
        return sorted(cache.glob("*-cache"))

    (entry,) = compiled()
    whole = entry.read_bytes()
    entry.write_bytes(whole[:100])
    other = cache / "jit_other-56-cache"
    other.touch()
    jax.clear_caches()
    assert set(compiled()) == {entry, other}
    assert len(entry.read_bytes()) > 0.9 * len(whole) > 100


def test_the_cache_is_trimmed_before_each_use_to_what_was_used_last(cache, monkeypatch):
    monkeypatch.setattr(runtime, "CACHE_BYTES", 250)
    cache.mkdir(parents=True)
    for age, name in enumerate("abcd"):
        (cache / name).write_bytes(bytes(100))
        os.utime(cache / name, (1e9 - age, 1e9 - age))
    runtime.use_compile_cache()
    assert sorted(path.name for path in cache.iterdir()) == ["a", "b"]
