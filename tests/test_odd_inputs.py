"""Inputs, systems and shells that are not in order cost a sentence and never a file."""
# ruff: noqa: F811

import gc
import io
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_cli import ROOT, image, models, run, wait_until_caught, written  # noqa: F401  (models: a fixture)

from fa_hific_jax import errors, interrupts, streams
from fa_hific_jax.cli import files, runtime, serve, values
from fa_hific_jax.codec import shipped
from fa_hific_jax.data import image_names
from fa_hific_jax.data.sources import open_source
from fa_hific_jax.errors import UserError

COMMAND = [sys.executable, str(ROOT / "tests/fake_model.py")]
ENV = os.environ | {"PYTHONPATH": str(ROOT), shipped.MODEL_VARIABLE: "verbatim"}
ENV.pop("PYTHONUNBUFFERED", None)


def process(*arguments, **options) -> subprocess.CompletedProcess:
    """The command line with a model that keeps pixels, in a process of its own."""
    given = {"env": ENV, "capture_output": True, "timeout": 60} | options
    return subprocess.run([*COMMAND, *map(str, arguments)], **given)


def one_sentence(done, code: int) -> str:
    """The only line on standard error of a command that ended with this code."""
    said = done.stderr.decode()
    assert done.returncode == code and said.count("\n") == 1 and "Traceback" not in said, said
    return said


# Names.


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain é 写真.png", "plain é 写真.png"),
        ("a\x1b[2Jb\nc\td", "a\\x1b[2Jb\\nc\\td"),
        (os.fsdecode(b"\xff\xfe.png"), "\\xff\\xfe.png"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
    ],
)
def test_names_are_shown_without_what_a_terminal_would_obey(name, expected):
    assert errors.shown(name) == expected


def test_a_name_with_an_escape_code_reaches_the_terminal_escaped(tmp_path):
    (tmp_path / "a\x1b[31m\n.png").write_bytes(b"no image")
    said = one_sentence(process("compress", tmp_path, "-o", tmp_path / "out"), 1)
    assert "\x1b" not in said and "a\\x1b[31m\\n.png" in said


def test_names_that_are_not_utf_8_are_coded_and_listed(tmp_path):
    folder = os.fsencode(tmp_path)
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    os.rename(folder + b"/a.png", folder + b"/\xff.png")
    assert process("compress", tmp_path, cwd=tmp_path).returncode == 0
    shown = process("info", tmp_path, cwd=tmp_path)
    assert shown.returncode == 0 and b"\\xff.fahj" in shown.stdout + shown.stderr


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "a [1].png", "dir/" * 1500 + "a.png"])
def test_a_name_that_cannot_be_is_one_sentence(tmp_path, name):
    done = process("compress", name, cwd=tmp_path)
    assert done.returncode in (1, 2) and b"Traceback" not in done.stderr
    assert done.stderr.count(b"\n") == 1
    reason = b"a [1].png: no such file" if "[" in name else b"File name too long"
    assert reason in done.stderr


@pytest.mark.parametrize("name", ["-x.png", "-o.png"])
def test_a_file_that_looks_like_an_option_is_named(models, capsys, name):
    image(name)
    assert run("compress", name) == 2
    assert f"{name}: begins with a hyphen like an option: give ./{name}" in capsys.readouterr().err
    assert run("compress", f"./{name}") == 0 and run("compress", "--force", "--", name) == 0


def test_folders_with_brackets_are_found_by_globs_too(models):
    image("k [1]/a.png")
    assert run("compress", "k [1]/*.png", "-o", "out") == 0
    assert written("out") == ["a.fahj"]
    assert run("compress", "k [1]/**/[ab].png", "-o", "deep") == 0
    assert written("deep") == ["a.fahj"]
    assert open_source("k [1]/*.png").names == ["a"]


def test_a_current_folder_that_is_gone_is_one_sentence(tmp_path):
    (tmp_path / "gone").mkdir()
    line = f"rmdir ../gone; exec {sys.executable} {ROOT}/tests/fake_model.py compress ../a.png"
    done = subprocess.run(
        ["sh", "-c", line], cwd=tmp_path / "gone", env=ENV, capture_output=True, timeout=60
    )
    assert "the current folder has been deleted: change to" in one_sentence(done, 2)


# Which files are images.


def test_compressing_training_and_evaluating_find_the_same_files(tmp_path):
    for number, suffix in enumerate(sorted(image_names.suffixes())):
        (tmp_path / f"{number}{suffix.upper()}").touch()
    (tmp_path / "b.txt").touch()
    found = {file.path.name for file in files.find([str(tmp_path)], image_names.suffixes()).files}
    names = open_source(str(tmp_path)).names
    assert len(names) == len(found) and {Path(name).stem for name in found} == set(names)
    assert {".avif", ".gif", ".jp2", ".jfif"} <= {Path(name).suffix.lower() for name in found}
    assert "b.txt" not in found


def test_images_that_cannot_be_read_here_are_counted_and_named(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(image_names, "_is_installed", lambda module: False)
    image(str(tmp_path / "a.png"), 4, 4)
    for name in ("b.heic", "c.HEIC", "d.jxl", "e.cr2", "notes.txt"):
        (tmp_path / name).touch()
    found = files.find([str(tmp_path)], image_names.suffixes())
    assert [file.path.name for file in found.files] == ["a.png"] and not found.unread
    counted = "4 files left out: .cr2 cannot be read, .heic needs pillow-heif, .jxl needs"
    assert counted in capfd.readouterr().err
    assert open_source(str(tmp_path)).names == ["a"]
    assert counted in capfd.readouterr().err


def test_a_plug_in_makes_its_suffix_one_of_those_that_are_read(monkeypatch):
    monkeypatch.setattr(image_names, "_is_installed", lambda module: module == "pillow_heif")
    assert {".heic", ".heif"} <= image_names.suffixes() and ".jxl" not in image_names.suffixes()


@pytest.fixture
def locked(monkeypatch):
    """Makes folders called "locked" unreadable and files called "locked.png" too, also for root."""
    scandir, opened = os.scandir, Path.open

    def refuse(path):
        raise PermissionError(13, "Permission denied", os.fspath(path))

    def scan(path="."):
        return refuse(path) if os.fspath(path).endswith("locked") else scandir(path)

    def open_(self, *args, **kwargs):
        return refuse(self) if self.name == "locked.png" else opened(self, *args, **kwargs)

    monkeypatch.setattr(os, "scandir", scan)
    monkeypatch.setattr(Path, "open", open_)


def test_an_unreadable_folder_does_not_keep_others_from_being_done(models, locked, capsys):
    image("in/a.png")
    image("in/locked/b.png")
    assert run("compress", "in", "-o", "out") == 1
    assert written("out") == ["a.fahj"]
    assert "error: in/locked: Permission denied\n" in capsys.readouterr().err


def test_a_folder_that_may_be_listed_and_not_entered_is_named(tmp_path, monkeypatch):
    image(str(tmp_path / "in/a.png"))
    image(str(tmp_path / "in/closed/b.png"))
    real = os.access

    def access(path, mode):
        return not os.fspath(path).endswith("closed") and real(path, mode)

    monkeypatch.setattr(os, "access", access)
    found = files.find([str(tmp_path / "in")], image_names.suffixes())
    assert [file.path.name for file in found.files] == ["a.png"]
    assert found.unread == [f"{tmp_path}/in/closed: Permission denied"]


def test_an_unreadable_file_is_named_and_the_others_are_done(models, locked, capsys):
    image("in/a.png")
    image("in/locked.png")
    assert run("compress", "in", "-o", "out") == 1
    assert written("out") == ["a.fahj"]
    assert "in/locked.png: Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["in/locked.png", "closed/b.png"])
def test_what_cannot_be_read_by_its_name_is_named_too(models, locked, capsys, monkeypatch, name):
    image("in/a.png")
    image(name)
    stat = os.stat

    def refuse(path, *args, **kwargs):
        if os.fspath(path) == "closed/b.png":  # in a folder that cannot be entered
            raise PermissionError(13, "Permission denied", path)
        return stat(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", refuse)
    assert run("compress", name, "in/a.png", "-o", "out") == 1
    assert written("out") == ["a.fahj"]
    assert f"error: {name}: Permission denied\n" in capsys.readouterr().err


def test_an_input_without_images_is_named_behind_an_unreadable_folder(models, locked, capsys):
    image("in/a.png")
    Path("in/locked").mkdir()
    Path("empty").mkdir()
    assert run("compress", "in", "empty", "-o", "out") == 2
    assert "empty: no file here ends in" in capsys.readouterr().err


# Pipes, signals.


def test_a_named_pipe_is_read_once(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    data = (tmp_path / "a.png").read_bytes()
    writer = threading.Thread(target=lambda: (tmp_path / "pipe.png").write_bytes(data))
    writer.start()
    done = process("compress", "pipe.png", "-o", "b.fahj", cwd=tmp_path)
    writer.join()
    assert done.returncode == 0, done.stderr
    assert process("compress", "a.png", "-o", "c.fahj", cwd=tmp_path).returncode == 0
    assert (tmp_path / "b.fahj").read_bytes() == (tmp_path / "c.fahj").read_bytes()


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="no /dev/fd")
def test_the_pipe_that_a_shell_substitutes_is_read_once(models, capsys):
    pixels = image("a.png", 5, 7)

    def substituted(name: str) -> str:
        read, write = os.pipe()
        os.write(write, Path(name).read_bytes())  # less than a pipe holds
        os.close(write)
        ends.append(read)
        return f"/dev/fd/{read}"

    ends: list[int] = []
    assert run("compress", substituted("a.png"), "-o", "b.fahj") == 0
    assert run("decompress", substituted("b.fahj"), "-o", "c.png") == 0
    assert run("info", substituted("b.fahj")) == 0
    for end in ends:
        os.close(end)
    assert "7 x 5 pixels" in capsys.readouterr().out
    with Image.open("c.png") as opened:
        np.testing.assert_array_equal(np.asarray(opened), pixels)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_signal_ends_the_wait_for_a_pipe_that_nobody_writes_to(tmp_path, number, code):
    os.mkfifo(tmp_path / "pipe.png")
    image(str(tmp_path / "a.png"), 4, 4)
    command = [*COMMAND, "compress", "pipe.png", "a.png", "-o", "out/"]
    started = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=ENV,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_until_caught(signal.SIGTERM, started.pid)
    with pytest.raises(subprocess.TimeoutExpired):
        started.wait(timeout=0.5)
    started.send_signal(number)
    said = started.communicate(timeout=15)[1]
    assert started.returncode == code and b"Traceback" not in said
    assert not list(tmp_path.rglob("*.tmp"))


def test_an_interrupt_that_a_callback_loses_still_ends_the_command():
    def lose(phase, info):
        gc.callbacks.remove(lose)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

    with pytest.raises(SystemExit) as ended, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with interrupts.interruptible():
            gc.callbacks.append(lose)
            gc.collect()
            interrupts.end_if_asked()
            raise AssertionError("the interrupt was lost")
    assert ended.value.code == 130


LOST_IN_EVAL = """
import gc, os, signal, time
from fa_hific_jax import interrupts
from fa_hific_jax.cli import eval

def main(*_):
    def lose(phase, info):
        gc.callbacks.remove(lose)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
    gc.callbacks.append(lose)
    gc.collect()
    print("lost", flush=True)
    interrupts.end_if_asked()
    print("went on")

signal.signal(signal.SIGINT, signal.default_int_handler)
main.__module__, eval.main = eval.__name__, main
eval.start()
"""


@pytest.mark.long
def test_an_interrupt_that_a_callback_loses_still_ends_an_evaluation():
    command = [sys.executable, "-c", LOST_IN_EVAL]
    done = subprocess.run(command, env=ENV, capture_output=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"lost\n", b"")


# Standard streams, environment.


def test_a_reader_of_the_output_that_has_gone_ends_it_in_silence(tmp_path):
    for i in range(3):
        image(str(tmp_path / f"{i}.png"), 4, 4)
    assert process("compress", tmp_path).returncode == 0
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as gone:
        done = process("info", tmp_path, stdout=gone, stderr=subprocess.PIPE, capture_output=False)
    assert done.stderr == b"" and done.returncode == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_standard_output_is_one_sentence(tmp_path):
    image(str(tmp_path / "a.png"), 4, 4)
    assert process("compress", tmp_path).returncode == 0
    with open("/dev/full", "wb") as full:
        done = process("info", tmp_path, stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert "standard output: No space left on device" in one_sentence(done, 1)


def test_a_closed_standard_input_is_named(tmp_path):
    line = f"{sys.executable} {ROOT}/tests/fake_model.py compress - -o b.fahj <&-"
    done = subprocess.run(
        ["sh", "-c", line], cwd=tmp_path, env=ENV, capture_output=True, timeout=60
    )
    assert one_sentence(done, 1) == "error: /dev/stdin: standard input is closed\n"
    assert written(str(tmp_path)) == []


def test_a_name_that_the_terminal_cannot_show_is_escaped_on_standard_output(monkeypatch):
    bytes_ = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(bytes_, "ascii"))
    streams.make_safe()
    print("é\udcff.png", flush=True)
    assert bytes_.getvalue() == b"\\xe9\\udcff.png\n"


@pytest.mark.long
@pytest.mark.parametrize(("script", "flag"), [("train", "--help"), ("eval", "--helpfull")])
def test_a_reader_of_the_help_that_has_gone_ends_it_in_silence(script, flag):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as gone:
        command = [sys.executable, "-m", "fa_hific_jax", script, flag]
        done = subprocess.run(
            command, env=ENV, cwd=ROOT, stdout=gone, stderr=subprocess.PIPE, timeout=120
        )
    assert done.stderr == b"" and done.returncode == 141


@pytest.mark.parametrize("redirected", ["2>&-", "2>/dev/full"])
def test_a_closed_or_full_standard_error_costs_no_file(tmp_path, redirected):
    frames = [Image.new("L", (3, 2), level) for level in (1, 9)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])  # has a note
    line = f"{sys.executable} {ROOT}/tests/fake_model.py compress a.gif {redirected}"
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, env=ENV, timeout=60)
    assert done.returncode == 0 and written(str(tmp_path)) == ["a.fahj", "a.gif"]


def test_no_home_is_no_trouble(tmp_path):
    image(str(tmp_path / "a.png"), 4, 4)
    env = {name: value for name, value in ENV.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    assert process("compress", "a.png", cwd=tmp_path, env=env).returncode == 0


def test_a_device_that_jax_does_not_find_is_one_sentence():
    error = RuntimeError("Unable to initialize backend 'cuda': no such thing. (more)\nand more")
    with pytest.raises(SystemExit) as ended, errors.reported():
        raise error
    assert ended.value.code == 2
    assert errors.reason(error).startswith("JAX_PLATFORMS is ")


@pytest.mark.long
@pytest.mark.parametrize("platform", ["cuda", "tpu", "nonsense"])
def test_a_device_that_this_machine_lacks_is_one_sentence(platform):
    code = (
        "from fa_hific_jax.errors import reported\nwith reported():\n    import jax; jax.devices()"
    )
    env = ENV | {"JAX_PLATFORMS": platform, "CUDA_VISIBLE_DEVICES": "", "TPU_SKIP_MDS_QUERY": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: JAX_PLATFORMS is '{platform}', but JAX finds no such")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (UserError("give another"), 2, "error: give another\n"),
        (OSError(28, "No space left on device", "/x/y"), 1, "error: /x/y: No space left on device"),
        (MemoryError(), 1, "error: not enough memory"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), 1, "error: not enough memory"),
        (
            ValueError("invalid truth value 'maybe' for environment 'JAX_ENABLE_X64'"),
            2,
            "error: JAX_ENABLE_X64 is 'maybe', which JAX does not accept: unset that variable",
        ),
        (
            ValueError('Invalid value "x" for JAX flag jax_default_prng_impl'),
            2,
            "error: JAX_DEFAULT_PRNG_IMPL is 'x', which JAX does not accept: unset that variable",
        ),
    ],
)
def test_errors_that_are_no_bugs_are_one_sentence(capsys, error, code, sentence):
    with pytest.raises(SystemExit) as ended, errors.reported():
        raise error
    said = capsys.readouterr()
    assert ended.value.code == code and said.err.startswith(sentence) and said.out == ""


def test_a_bug_keeps_its_traceback():
    for bug in (KeyError("bug"), ValueError("Invalid value of a bug"), RuntimeError("bug")):
        with pytest.raises(type(bug)), errors.reported():
            raise bug


@pytest.mark.parametrize(
    ("take", "text", "wanted"),
    [
        (values.threads, "x", "give a whole number from 1 to 256"),
        (values.threads, "0", "give a whole number from 1 to 256"),
        (values.threads, "9" * 20, "give a whole number from 1 to 256"),
        (values.share, "1.5", "give a number from 0 to 1"),
        (values.positive, "inf", "give a number above 0"),
        (values.positive, "nan", "give a number above 0"),
        (values.port, "70000", "give a whole number up to 65535"),
    ],
)
def test_numbers_of_the_command_line_are_named_with_what_is_wanted(take, text, wanted):
    with pytest.raises(Exception, match=f"invalid value '{text}': {wanted}"):
        take(text)


def test_the_page_asks_itself_for_nothing_through_a_proxy(monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    os.environ |= {"http_proxy": "http://127.0.0.1:9", "ALL_PROXY": "socks5://127.0.0.1:9"}
    serve._use_no_proxy()
    assert os.environ["NO_PROXY"] == "*"
    assert not {"http_proxy", "ALL_PROXY"} & os.environ.keys()


# The cache of compiled programs.


def test_the_cache_keeps_what_was_used_last(tmp_path):
    for age, name in enumerate("abcd"):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    runtime.trim(tmp_path, 250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_damaged_entry_of_the_cache_is_removed_and_others_stay(tmp_path, monkeypatch):
    for name in ("jit_program-12ab-cache", "jit_program-34cd-cache", "jit_other-56-cache"):
        (tmp_path / name).touch()
    import jax

    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    try:
        with runtime.orderly():
            warnings.warn(
                "Error reading persistent compilation cache entry for 'jit_program': bad",
                stacklevel=1,
            )
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert [path.name for path in tmp_path.iterdir()] == ["jit_other-56-cache"]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder of compiled programs of a user whose cache folder is empty."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update(names[0], None)
    compilation_cache.reset_cache()
    yield tmp_path / "fa-hific" / "jax"
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_a_program_whose_entry_is_damaged_is_compiled_and_kept_again(cache):
    import jax

    def compiled() -> list[Path]:
        with runtime.orderly():
            runtime.use_compile_cache()
            assert np.asarray(jax.jit(lambda x: 3 * x + 1)(np.float32(2))) == 7
        return sorted(cache.glob("*-cache"))

    (entry,) = compiled()
    whole = entry.read_bytes()
    entry.write_bytes(whole[:100])
    jax.clear_caches()
    assert compiled() == [entry] and len(entry.read_bytes()) > 0.9 * len(whole) > 100


def test_the_cache_of_programs_is_trimmed_before_each_use(cache, monkeypatch):
    monkeypatch.setattr(runtime, "CACHE_BYTES", 150)
    cache.mkdir(parents=True)
    for age, name in enumerate("ab"):
        (cache / name).write_bytes(bytes(100))
        os.utime(cache / name, (1e9 - age, 1e9 - age))
    runtime.use_compile_cache()
    assert [path.name for path in cache.iterdir()] == ["a"]
