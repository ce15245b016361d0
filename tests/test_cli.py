"""compress, decompress and info: what they read and write, refuse, survive and leave behind."""

import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from cpu_devices import hasty
from fake_model import MODEL_ID, FakeModel
from PIL import Image
from tiny_settings import tiny_settings

from fa_hific_jax import interrupts
from fa_hific_jax.cli import batch, files, runtime
from fa_hific_jax.cli.main import COMMANDS, main
from fa_hific_jax.cli.progress import Progress, _clock
from fa_hific_jax.codec import bitstream, shipped
from fa_hific_jax.codec.model import from_params
from fa_hific_jax.codec.model_folder import load_model, save_model
from fa_hific_jax.models.autoencoder import Autoencoder

ROOT = Path(__file__).resolve().parents[1]
RNG = np.random.default_rng(0)


@pytest.fixture
def models(monkeypatch, tmp_path):
    """The models that commands load while the test runs in an empty folder."""
    loaded = []

    def load_model(name):
        loaded.append(FakeModel(name))
        return loaded[-1]

    module = types.SimpleNamespace(load_model=load_model)
    monkeypatch.setitem(sys.modules, "fa_hific_jax.codec.model_folder", module)
    monkeypatch.setenv(shipped.MODEL_VARIABLE, "verbatim")
    monkeypatch.chdir(tmp_path)
    return loaded


def image(path: str, height: int = 6, width: int = 9, bands: int = 3) -> np.ndarray:
    pixels = RNG.integers(0, 255, (height, width, bands), np.uint8)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def run(*arguments) -> int:
    """Exit code of the command line."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as error:
        assert isinstance(error.code, int)
        return error.code
    return 0


def wait_until_caught(number: int, pid: int) -> None:
    """Waits until a process has a handler of its own for a signal, where /proc tells."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        time.sleep(3)
        return
    while True:
        caught = int(status.read_text().partition("SigCgt:")[2].split()[0], 16)
        if caught >> (number - 1) & 1:
            return
        time.sleep(0.05)


def written(folder: str = ".") -> list[str]:
    """All files below, hidden ones too."""
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file())


def pixels_of(path: str) -> np.ndarray:
    with Image.open(path) as opened:
        return np.asarray(opened)


@pytest.mark.parametrize("bands", [3, 4])
def test_an_image_goes_there_and_back(models, bands):
    pixels = image("a.png", bands=bands)
    assert run("compress", "a.png") == 0
    assert run("decompress", "a.fahj", "-o", "b.png") == 0
    np.testing.assert_array_equal(pixels_of("b.png"), pixels)
    assert written() == ["a.fahj", "a.png", "b.png"]


def test_a_single_quick_image_is_passed_over_in_silence(models, capsys):
    image("a.png")
    run("compress", "a.png")
    assert capsys.readouterr() == ("", "")


def test_folders_are_mirrored_there_and_back(models):
    names = ["in/a.png", "in/x/a.png", "in/x/y/b.png"]
    originals = {name: image(name) for name in names}
    image("in/.hidden.png")
    Path("in/notes.txt").write_text("no image")
    assert run("compress", "in", "-o", "out/deep") == 0
    assert written("out/deep") == ["a.fahj", "x/a.fahj", "x/y/b.fahj"]
    assert run("decompress", "out/deep/", "-o", "back") == 0
    for name, pixels in originals.items():
        np.testing.assert_array_equal(pixels_of(name.replace("in/", "back/")), pixels)


def test_quoted_globs_are_mirrored_from_their_first_wildcard(models):
    for name in ("in/p/a.png", "in/q/a.png", "in/q/b.bmp"):
        image(name)
    assert run("compress", "in/*/*.png", "-o", "out") == 0
    assert written("out") == ["p/a.fahj", "q/a.fahj"]
    assert run("compress", "in/**/*.bmp") == 0
    assert written("in/q") == ["a.png", "b.bmp", "b.fahj"]


def test_names_with_wildcards_in_them_are_names(models):
    image("odd[1].png")
    assert run("compress", "odd[1].png") == 0
    assert "odd[1].fahj" in written()


def test_one_input_may_name_its_output_or_a_folder(models):
    image("a.png")
    Path("there").mkdir()
    for out in ("x.bin", "there", "new/"):
        assert run("compress", "a.png", "-o", out) == 0
    assert written() == ["a.png", "new/a.fahj", "there/a.fahj", "x.bin"]
    for suffix in ("jpg", "webp", "tif"):
        assert run("decompress", "x.bin", "-o", f"b.{suffix}") == 0
        assert pixels_of(f"b.{suffix}").shape == (6, 9, 3)


def test_a_file_given_twice_is_compressed_once(models):
    image("in/a.png")
    assert run("compress", "in", "in/a.png", "./in/../in/a.png") == 0
    assert len(models[0].calls) == 1


def test_circular_links_end(models):
    image("in/a.png")
    os.symlink(Path("in").absolute(), "in/again")
    assert run("compress", "in") == 0
    assert written("in") == ["a.fahj", "a.png"]


def refused(capsys, *arguments) -> str:
    """The sentence of a command that changes nothing and ends with 2."""
    before = {name: Path(name).read_bytes() for name in written()}
    assert run(*arguments) == 2
    assert {name: Path(name).read_bytes() for name in written()} == before
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    return err.removeprefix("error: ").strip()


def test_nothing_is_overwritten_without_force(models, capsys):
    for name in ("in/a.png", "in/b.png", "in/c.png"):
        image(name)
    Path("in/b.fahj").write_bytes(b"precious")
    Path("in/c.fahj").symlink_to("nowhere")
    sentence = refused(capsys, "compress", "in")
    assert sentence.startswith("in/b.fahj and 1 more: exist already: give --force to overwrite")
    assert models == []
    assert run("compress", "in", "--force") == 0
    assert Path("in/b.fahj").read_bytes()[:4] == b"FAHJ"


MISTAKES = [
    (["compress", "absent.png"], "absent.png: no such file or folder"),
    (["compress", "no*.png"], r"no\*.png: no file here ends in .*\.png"),
    (["compress", "empty"], r"empty: no file here ends in .*: give a file by its name"),
    (["decompress", "in"], r"in: no file here ends in \.fahj"),
    (["compress", "in"], "in/a.bmp and in/a.png would both become in/a.fahj: use two commands"),
    (["compress", "in/a.png", "x/a.png", "-o", "out"], "would both become out/a.fahj"),
    (["compress", "in/a.png", "-o", "in/a.png", "--force"], "in/a.png: is an input, so it"),
    (["compress", "in/a.png", "x/a.png", "-o", "x/a.png"], "x/a.png: is a file, but several files"),
    (["compress", "x", "-o", "x/a.png"], "x/a.png: is a file, but several files need a folder"),
    (["compress", "in/a.bmp"], "in/a.fahj: is a folder, but a file is to be written"),
    (["decompress", "x/a.fahj", "-o", "b.gif"], r"b\.gif: images are written as \.png"),
    (["info", "absent"], "absent: no such file or folder"),
]


@pytest.mark.parametrize("arguments, sentence", MISTAKES, ids=range(len(MISTAKES)))
def test_a_wrong_command_changes_nothing_and_says_why(models, capsys, arguments, sentence):
    for name in ("in/a.png", "in/a.bmp", "x/a.png"):
        image(name)
    for folder in ("empty", "in/a.fahj/x"):
        Path(folder).mkdir(parents=True)
    Path("x/a.fahj").write_bytes(b"any")
    assert re.search(sentence, refused(capsys, *arguments))
    assert all(model.calls == [] for model in models)


def test_without_a_choice_the_shipped_model_codes(models, monkeypatch):
    image("a.png")
    monkeypatch.delenv(shipped.MODEL_VARIABLE)
    run("compress", "a.png")
    assert [model.name for model in models] == ["lite"]


def test_without_a_choice_the_model_that_made_the_file_decodes_it(models, monkeypatch, capsys):
    image("a.png")
    run("compress", "a.png")
    monkeypatch.delenv(shipped.MODEL_VARIABLE)
    assert run("decompress", "a.fahj", "-o", "b.png") == 1
    assert re.fullmatch(
        rf"error: a.fahj: the file was made with model {MODEL_ID.hex()}, which is none of those "
        r"with a name on this machine \(lite.*\): give the folder of that model, or fetch it with "
        r"`fa-hific get-model`\n",
        capsys.readouterr().err,
    )
    monkeypatch.setattr(shipped, "with_id", {MODEL_ID: "its maker"}.get)
    assert run("decompress", "a.fahj", "-o", "b.png") == 0
    assert [model.name for model in models] == ["verbatim", "its maker"]


def test_the_flag_goes_before_the_environment(models):
    image("a.png")
    run("compress", "a.png", "--model", "given")
    run("compress", "a.png", "--force")
    assert [model.name for model in models] == ["given", "verbatim"]


@pytest.mark.parametrize("arguments", [["compress"], ["compress", "a", "--jobs", "0"], ["x"], []])
def test_wrong_arguments_end_with_2(arguments, capsys):
    assert run(*arguments) == 2
    assert "usage: fa-hific" in capsys.readouterr().err


def test_options_reach_the_model_and_it_knows_all_sizes_first(models):
    image("in/a.png", 6, 9)
    image("in/b.png", 7, 5)
    Path("in/c.png").write_bytes(b"bad")
    run("compress", "in", "-o", "out", "--coder", "tfc", "--fast", "--mode", "exact")
    expected = {"coder": "tfc", "reproducible": False, "mode": "exact", "plan": "the plan"}
    assert models[0].calls == [expected | {"quality": None}] * 2
    run("decompress", "out", "-o", "back", "--mode", "blend")
    assert models[1].calls == [{"mode": "blend", "plan": "the plan", "detail": None}] * 2
    assert models[0].planned == models[1].planned == [(6, 9), (7, 5)]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_metadata_come_back_on_request_alone(models, suffix):
    image("a.png")
    exif = Image.Exif()
    exif[0x0112], exif[0x8769] = 3, {0x9003: "2019:05:06 07:08:09"}
    Image.open("a.png").save("a.jpg", exif=exif.tobytes())
    run("compress", "a.jpg", "-o", "kept.fahj", "--keep-metadata")
    run("compress", "a.jpg", "-o", "plain.fahj")
    for name, date in (("kept", "2019:05:06 07:08:09"), ("plain", None)):
        assert run("decompress", f"{name}.fahj", "-o", f"{name}.{suffix}") == 0
        with Image.open(f"{name}.{suffix}") as opened:
            told = opened.getexif()
            assert told.get_ifd(0x8769).get(0x9003) == date and told.get(0x0112, 1) == 1


def test_a_rate_that_the_smallest_file_exceeds_is_noted(models, capsys):
    image("a.png", 60, 90)
    run("compress", "a.png", "--model", "gains", "--bpp", "0.4")
    size = Path("a.fahj").stat().st_size
    note = f"note: a.png: the smallest possible file has {8 * size / 5400:.3g} bits per pixel"
    assert note in capsys.readouterr().err
    run("compress", "a.png", "--model", "gains", "--bpp", "40", "--force")
    assert "note:" not in capsys.readouterr().err


def test_the_rate_that_is_asked_for_counts_transparency_and_metadata(models, monkeypatch):
    alpha = image("a.png", bands=4)[..., 3]
    exif = Image.Exif()
    exif[0x0132] = "2019:05:06 07:08:09"
    Image.open("a.png").save("b.png", exif=exif)
    asked = []
    monkeypatch.setattr(
        FakeModel, "quality_for", lambda self, *args, **options: asked.append(options)
    )
    for name, flags in (("a", []), ("b", ["--keep-metadata"])):
        run("compress", f"{name}.png", "--model", "gains", "--bpp", "0.4", *flags)
    for options in asked:
        np.testing.assert_array_equal(options["alpha"], alpha)
    grown = Path("b.fahj").stat().st_size - Path("a.fahj").stat().st_size
    assert asked[0]["reserved"] == 0 and asked[1]["reserved"] >= grown > 20


def test_quality_rate_and_detail_reach_a_model_that_has_them(models):
    image("a.png", 6, 9)
    run("compress", "a.png", "--model", "gains", "--quality", "0.75")
    run("compress", "a.png", "--model", "gains", "--bpp", "0.4", "--force")
    assert [model.calls[0]["quality"] for model in models] == [0.75, 0.04]
    run("decompress", "a.fahj", "--model", "gains", "--detail", "0.5", "-o", "b.png")
    assert models[2].calls[0]["detail"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compress", "a.png", "--quality", "0.5"), "has a single rate: omit --quality and --bpp"),
        (("compress", "a.png", "--bpp", "0.5"), "has a single rate: omit --quality and --bpp"),
        (("decompress", "a.fahj", "--detail", "1"), "has no frequency complement modules"),
        (("compress", "a.png", "--quality", "1.5"), "argument --quality: invalid"),
        (("compress", "a.png", "--bpp", "0"), "argument --bpp: invalid"),
        (("compress", "a.png", "--bpp", "1", "--quality", "1"), "not allowed with argument"),
        (("decompress", "a.fahj", "--detail", "2"), "argument --detail: invalid"),
    ],
)
def test_choices_that_cannot_be_made_are_named(models, arguments, message, capsys):
    image("a.png", 6, 9)
    Path("a.fahj").write_bytes(b"FAHJ")
    assert run(*arguments, "-o", "new/") == 2
    assert message in capsys.readouterr().err
    assert not Path("new").exists()


def test_bad_files_are_passed_and_named_at_the_end(models, capsys):
    for i in range(6):
        image(f"in/{i}.png")
    image("in/x.png", 13)  # runs out of memory
    for name in ("in/2b.png", "in/9.jpg"):
        Path(name).write_bytes(b"bad")
    assert run("compress", "in", "-o", "out", "--jobs", "3") == 1
    assert written("out") == [f"{i}.fahj" for i in range(6)]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("9/9 images, ")
    assert [line.partition(" (")[0] for line in lines[1:]] == [
        "error: in/2b.png: cannot be read as an image",
        "error: in/9.jpg: cannot be read as an image",
        "error: in/x.png: RuntimeError: RESOURCE_EXHAUSTED: out of memory",
    ]


def test_damaged_and_foreign_files_are_named_at_the_end(models, capsys):
    image("in/a.png")
    run("compress", "in/a.png")
    good = Path("in/a.fahj").read_bytes()
    held = bitstream.unpack(good)
    Path("in/b.fahj").write_bytes(good[:-1])
    Path("in/c.fahj").write_bytes(bitstream.pack(held._replace(model_id=b"another!")))
    assert run("decompress", "in", "-o", "out") == 1
    assert written("out") == ["a.png"]
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert "in/b.fahj: the file is truncated" in errors[0]
    assert "in/c.fahj: the file was made with model" in errors[1]
    assert len(errors) == 2


def test_what_cannot_be_written_is_named(models, capsys):
    image("a.png", bands=4)
    Path("file").write_bytes(b"")
    assert run("compress", "a.png", "-o", "file/x/a.fahj") == 1
    assert capsys.readouterr().err.startswith("error: a.png: Not a directory (file")
    run("compress", "a.png")
    assert run("decompress", "a.fahj", "-o", "b.jpg") == 1
    assert "JPEG cannot hold transparency: write PNG" in capsys.readouterr().err
    assert run("decompress", "a.fahj", "-o", "b.jpg", "--drop-alpha") == 0


def test_drop_alpha_lays_on_white(models):
    Image.fromarray(np.array([[[9, 9, 9, 0], [1, 2, 3, 255]]], np.uint8)).save("a.png")
    assert run("compress", "a.png", "--drop-alpha") == 0
    assert run("decompress", "a.fahj", "-o", "b.png") == 0
    np.testing.assert_array_equal(pixels_of("b.png"), [[[255, 255, 255], [1, 2, 3]]])


def test_notes_name_their_image(models, capsys):
    Image.new("RGB", (3, 2)).save("a.gif", save_all=True, append_images=[Image.new("L", (3, 2), 9)])
    assert run("compress", "a.gif") == 0
    expected = "note: a.gif: only the first of its frames or pages is kept\n"
    assert capsys.readouterr().err == expected


def test_info_tells_sizes_of_all_parts(models, capsys):
    image("in/a.png", bands=4)
    image("in/b.png")
    run("compress", "in")
    capsys.readouterr()
    assert run("info", "in", "--json") == 0
    first, second = json.loads(capsys.readouterr().out)
    size = Path("in/a.fahj").stat().st_size
    parts = first.pop("bytes")
    assert parts["file"] == size == sum(parts[k] for k in ("header", "z", "y", "alpha"))
    assert parts["alpha"] > 0 == second["bytes"]["alpha"]
    assert first == {
        "file": "in/a.fahj",
        "width": 9,
        "height": 6,
        "alpha": True,
        "bpp": pytest.approx(8 * size / 54),
        "quality": None,
        "model_id": MODEL_ID.hex(),
        "model": None,
        "version": bitstream.VERSION,
        "coder": "constriction",
        "symbols_crc": "00000000",
    }
    assert run("info", "in/a.fahj") == 0
    text = capsys.readouterr().out
    assert f"image   9 x 6 pixels, with transparency\n  file    {size} bytes, " in text
    held = bitstream.unpack(Path("in/a.fahj").read_bytes())
    Path("c.fahj").write_bytes(bitstream.pack(held._replace(quality=51)))
    run("info", "c.fahj")
    assert ", quality 0.200" in capsys.readouterr().out


def test_info_names_what_is_damaged(models, capsys):
    image("a.png")
    run("compress", "a.png")
    Path("b.fahj").write_bytes(b"FAHJ")
    assert run("info", "*.fahj", "--json") == 1
    out, err = capsys.readouterr()
    assert [one["file"] for one in json.loads(out)] == ["a.fahj"]
    assert err.startswith("error: b.fahj: the file is truncated") and err.count("\n") == 1


def test_threads_never_hold_more_than_they_may(tmp_path):
    jobs = [files.Job(Path(f"{i}"), Path(f"{i}.out")) for i in range(30)]
    lock, held, most = threading.Lock(), set(), 0

    def read(job):
        nonlocal most
        with lock:
            held.add(job.source)
            most = max(most, len(held))
        return job.source

    def write(job, done):
        time.sleep(0.001)
        with lock:
            held.discard(done)

    order = []
    work = lambda source: order.append(source) or source  # noqa: E731
    progress = Progress(30, 30, io.StringIO())
    assert batch.run(jobs, {}, (read, work, write), 3, progress) == []
    assert order == [job.source for job in jobs]
    assert not held and most <= 3 + 1 + 3 + 1  # ahead, at work, behind, and one changing hands


def test_after_an_interrupt_nobody_waits_for_a_stuck_reader_or_for_what_has_not_begun(monkeypatch):
    jobs = [files.Job(Path(f"{i}"), Path(f"{i}.out")) for i in range(3)]
    released, ended = threading.Event(), threading.Event()

    def read(job):  # While the only thread is stuck here, the first file waits to be written.
        return job.source if job.source == Path("0") else released.wait(20)

    def work(source):
        monkeypatch.setattr(interrupts, "_asked", [signal.SIGINT])
        return source

    def interrupted():
        with pytest.raises(KeyboardInterrupt):
            progress = Progress(3, 3, io.StringIO())
            batch.run(jobs, {}, (read, work, lambda job, done: None), 1, progress)
        ended.set()

    threading.Thread(target=interrupted, daemon=True).start()
    assert ended.wait(5)
    released.set()


def test_a_bug_is_not_hidden(models, monkeypatch):
    image("a.png")
    monkeypatch.setattr(FakeModel, "compress", lambda *args, **kwargs: {}["bug"])
    with pytest.raises(KeyError, match="bug"):
        run("compress", "a.png")


def test_progress_on_a_terminal_lives_on_one_line():
    class Terminal(io.StringIO):
        isatty = lambda self: True  # noqa: E731

    stream = Terminal()
    with Progress(4, 4_000_000, stream) as progress:
        progress.advance(2_000_000)
        time.sleep(0.7)
        progress.say("note: x")
    assert "\r\x1b[K1/4 images, " in stream.getvalue() and " left" in stream.getvalue()
    assert "\r\x1b[Knote: x\n" in stream.getvalue()
    assert stream.getvalue().count("\n") == 2


def test_clocks_are_read_at_a_glance():
    assert [_clock(s) for s in (0.04, 59.9, 61.0, 3725.0)] == [
        "0.0 s",
        "59.9 s",
        "1:01 min",
        "1:02:05 h",
    ]


@pytest.mark.parametrize(
    "told, home, expected",
    [(None, "", "fa-hific/jax"), ("elsewhere", "", "elsewhere"), (None, "file", None)],
)
def test_the_compile_cache_lies_in_the_users_cache_folder(
    tmp_path, monkeypatch, told, home, expected
):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / home))
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    try:
        jax.config.update(names[0], told and str(tmp_path / told))
        runtime.use_compile_cache()
        assert jax.config.jax_compilation_cache_dir == (expected and str(tmp_path / expected))
        if expected == "fa-hific/jax":
            assert jax.config.jax_persistent_cache_min_compile_time_secs == 0.0
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def test_help_of_every_command_starts_light_and_gives_an_example():
    code = "import sys; import fa_hific_jax.cli.main as m; m.parser(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert {"jax", "numpy", "flax", "PIL"}.isdisjoint(done.stdout.split())
    for name in ("compress", "decompress", "info"):
        assert f"fa-hific {name} " in (COMMANDS[name].__doc__ or "")


def started(*arguments) -> subprocess.Popen:
    """The command line with the fake model, in a process of its own."""
    env = os.environ | {"PYTHONPATH": str(ROOT), shipped.MODEL_VARIABLE: "verbatim"}
    command = [sys.executable, "tests/fake_model.py", *map(str, arguments)]
    return subprocess.Popen(command, env=env, cwd=ROOT, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def fifty(models, tmp_path):
    """Folder of 50 compressed images, and the image that each of them decodes to."""
    pixels = image("in/0.png", 300, 300)
    run("compress", "in/0.png", "-o", "in/0.fahj")
    for i in range(1, 50):
        Path(f"in/{i}.fahj").write_bytes(Path("in/0.fahj").read_bytes())
    return tmp_path / "in", pixels


def stopped(folder: Path, out: Path, how: signal.Signals, after: int) -> subprocess.Popen:
    """The process that was writing into `out` and got the signal when so many files were there."""
    process = started("decompress", folder, "-o", out)
    while process.poll() is None and len(list(out.glob("*.png"))) < after:
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.01))
    process.send_signal(how)
    process.wait(timeout=30)
    return process


def test_killed_at_any_moment_it_leaves_no_half_image(fifty):
    folder, pixels = fifty
    finished = 0
    for after in (0, 1, 8, 20, 33):
        out = folder.parent / f"out{after}"
        assert stopped(folder, out, signal.SIGKILL, after).returncode == -signal.SIGKILL
        for path in out.glob("*.png"):
            np.testing.assert_array_equal(pixels_of(str(path)), pixels)
            finished += 1
    assert 62 <= finished < 250


@pytest.mark.parametrize("how, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_end_it_tidies_up(fifty, how, code):
    folder, pixels = fifty
    out = folder.parent / "out"
    process = stopped(folder, out, how, 3)
    assert process.returncode == code
    assert process.stderr is not None and "Traceback" not in process.stderr.read()
    names = written(str(out))
    assert 3 <= len(names) < 50 and all(name.endswith(".png") for name in names)
    for name in names:
        np.testing.assert_array_equal(pixels_of(str(out / name)), pixels)


@pytest.fixture(scope="module")
def real_model(tmp_path_factory):
    """A folder with an untrained model."""
    config = tiny_settings().model
    x = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    shapes = jax.eval_shape(Autoencoder(config).init, jax.random.key(0), x)["params"]
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32), shapes)
    return save_model(from_params(config, params), tmp_path_factory.mktemp("model") / "tiny")


def as_a_process(*arguments) -> subprocess.CompletedProcess:
    env = os.environ | hasty() | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "fa_hific_jax", *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


def test_the_real_codec_runs_as_a_process_and_says_nothing_else(
    real_model, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    alphas = [image(f"in/{i}.png", 60 + i, 70 - i, 4)[..., 3] for i in range(4)]
    image("single.png", 1, 1)
    done = as_a_process("compress", "in", "single.png", "-o", "out", "--model", real_model)
    assert done.returncode == 0 and done.stdout == ""
    # A slow machine also says how far it is, every half a minute.
    lines = done.stderr.splitlines()
    assert re.fullmatch(r"5/5 images, [\d.]+ MB/s in .+", lines[-1]), done.stderr
    assert all(re.match(r"\d/5 images, ", line) for line in lines), done.stderr
    monkeypatch.setenv(shipped.MODEL_VARIABLE, str(real_model))
    done = as_a_process("decompress", "out", "-o", "back")
    assert done.returncode == 0 and done.stdout == "", done.stderr
    assert all(re.match(r"\d/5 images, ", line) for line in done.stderr.splitlines()), done.stderr
    model = load_model(real_model)
    for i, alpha in enumerate(alphas):
        decoded = pixels_of(f"back/{i}.png")
        np.testing.assert_array_equal(decoded[..., 3], alpha)
        expected = model.decompress(Path(f"out/{i}.fahj").read_bytes())
        # Other canvases and other optimization: other sums, one step of 8 bits at most.
        np.testing.assert_allclose(decoded[..., :3].astype(int), expected, atol=1)
    assert pixels_of("back/single.png").shape == (1, 1, 3)
    assert run("info", "out/0.fahj", "--json") == 0
    (described,) = json.loads(capsys.readouterr().out)
    assert described["model_id"] == model.model_id.hex()
