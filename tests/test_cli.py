"""compress, decompress and info: what they read and write, refuse, survive and leave behind."""
# ruff: noqa: F811

import io
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import (  # noqa: F401  (models: a fixture)
    animation,
    image,
    models,
    pixels_of,
    refused,
    run,
    started,
    stopped,
    written,
)
from fake_model import MODEL_ID, FakeModel
from PIL import Image

from fa_hific_jax import interrupts
from fa_hific_jax.cli import batch, files
from fa_hific_jax.cli.progress import Progress
from fa_hific_jax.codec import bitstream, shipped
from fa_hific_jax.data.sources import open_source

# Files.


def test_files_and_folders_go_there_and_back_in_silence(models, capsys):
    originals = {f"in/{name}": image(f"in/{name}") for name in ("a.png", "x/a.png")}
    originals["in/x/y/b.png"] = image("in/x/y/b.png", bands=4)
    image("in/.hidden.png")
    Path("in/notes.txt").write_text("no image")
    assert run("compress", "in/a.png") == run("decompress", "in/a.fahj", "-o", "b.png") == 0
    assert capsys.readouterr() == ("", "")
    np.testing.assert_array_equal(pixels_of("b.png"), originals["in/a.png"])
    assert run("compress", "in", "-o", "out/deep") == run("decompress", "out/", "-o", "back") == 0
    assert written("out/deep") == ["a.fahj", "x/a.fahj", "x/y/b.fahj"]
    for name, pixels in originals.items():
        np.testing.assert_array_equal(pixels_of(name.replace("in/", "back/deep/")), pixels)


def test_quoted_globs_are_mirrored_from_their_first_wildcard(models):
    for name in ("in/p/a.png", "in/q/a.png", "in/q/b.bmp", "k [1]/a.png", "odd[1].png"):
        image(name)
    assert run("compress", "in/*/*.png", "-o", "out") == run("compress", "in/**/*.bmp") == 0
    assert written("out") == ["p/a.fahj", "q/a.fahj"]
    assert written("in/q") == ["a.png", "b.bmp", "b.fahj"]
    # Brackets may be part of a name.
    for out, source in (("name", "k [1]/a.png"), ("glob", "k [1]/*.png"), ("a", "k [1]/**/[ab].*")):
        assert run("compress", source, "-o", f"{out}/") == 0 and written(out) == ["a.fahj"]
    assert open_source("k [1]/*.png").names == ["a"]
    assert run("compress", "odd[1].png") == 0 and Path("odd[1].fahj").exists()


def test_one_input_may_name_its_output_or_a_folder(models):
    image("a.png")
    Path("there").mkdir()
    for out in ("x.bin", "there", "new/"):
        assert run("compress", "a.png", "-o", out) == 0
    assert written() == ["a.png", "new/a.fahj", "there/a.fahj", "x.bin"]
    for suffix in ("jpg", "webp", "tif"):
        assert run("decompress", "x.bin", "-o", f"b.{suffix}") == 0
        assert pixels_of(f"b.{suffix}").shape == (6, 9, 3)


def test_a_file_that_several_inputs_and_circular_links_lead_to_is_compressed_once(models):
    image("in/a.png")
    os.symlink(Path("in").absolute(), "in/again")
    assert run("compress", "in", "in/a.png", "./in/../in/a.png") == 0
    assert len(models[0].calls) == 1 and written("in") == ["a.fahj", "a.png"]


# Mistakes.


def test_nothing_is_overwritten_without_force(models, capsys):
    for name in ("in/a.png", "in/b.png", "in/c.png"):
        image(name)
    Path("in/b.fahj").write_bytes(b"precious")
    Path("in/c.fahj").symlink_to("nowhere")
    assert "in/b.fahj (and 1 more): exists already" in refused(capsys, "compress", "in")
    assert models == [] and run("compress", "in", "--force") == 0
    assert Path("in/b.fahj").read_bytes()[:4] == b"FAHJ"


MISTAKES = [
    ("", "usage: fa-hific"),
    # Inputs.
    ("compress absent.png", "absent.png: no such file or folder"),
    ("compress no*.png", "no*.png: no file here ends in"),
    ("compress a[1].png", "a[1].png: no such file"),
    ("compress in empty -o new/", "empty: no file here ends in"),
    ("decompress in", "in: no file here ends in .fahj"),
    ("compress ''", "argument INPUT: an empty name: give . for the current folder"),
    ("compress -o.png", "-o.png: begins with a hyphen like an option: give ./-o.png"),
    # Outputs.
    ("compress in", "in/a.bmp and in/a.png would both become in/a.fahj: use two commands"),
    ("compress in/a.png x/a.png -o out", "would both become out/a.fahj"),
    ("compress in/a.png -o in/a.png --force", "in/a.png: is an input, so it"),
    ("compress x -o x/a.png", "x/a.png: is the name of a file, but several files need"),
    ("compress x -o all.fahj", "all.fahj: is the name of a file, but several files"),
    ("compress in/a.bmp", "in/a.fahj: is a folder, but a file is to be written"),
    ("compress a.png -o b.PNG", "b.PNG: is the name of an image, but"),
    ("compress a.png x/a.png -o -", "/dev/stdout: is the name of a file, but several"),
    ("compress a.png -o ''", "argument -o/--output: '' is not the name"),
    ("compress a.png -o ~nobody-of-this-name/x", "no such home folder: give ./~nobody"),
    ("decompress b.fahj -o b.gif", "b.gif: images are written as .png"),
    ("export run -o ''", "'' is not the name"),
    # Numbers.
    ("compress a.png --jobs 0", "--jobs: invalid value '0': give a whole number from 1 to 256"),
    ("compress a.png --quality 1.5", "--quality: invalid value '1.5': give a number from 0 to 1"),
    ("compress a.png --bpp 0", "argument --bpp: invalid value '0': give a number above 0"),
    ("compress a.png --bpp nan", "argument --bpp: invalid value 'nan'"),
    ("compress a.png --bpp 1 --quality 1", "not allowed with argument"),
    ("serve --port=0", "argument --port: invalid value '0': give a whole number up to 65535"),
    ("serve --max-megapixels=x", "argument --max-megapixels: invalid"),
    # What the model does not have.
    ("compress a.png -o new/ --quality 0.5", "has a single rate: omit --quality and --bpp"),
    ("decompress b.fahj -o new/ --detail 1", "has no frequency complement modules"),
]


@pytest.mark.parametrize("line, sentence", MISTAKES)
def test_a_wrong_command_changes_nothing_and_says_why(models, capsys, line, sentence):
    for name in ("a.png", "in/a.png", "in/a.bmp", "x/a.png", "-o.png"):
        image(name)
    for folder in ("empty", "in/a.fahj/x"):
        Path(folder).mkdir(parents=True)
    for name in ("b.fahj", "x/a.fahj"):
        Path(name).write_bytes(b"any")
    assert sentence in refused(capsys, *(word.strip("'") for word in line.split()))


# Models and options.


def test_the_flag_takes_precedence_over_the_environment_and_that_over_the_models_that_come_along(
    models, monkeypatch, capsys
):
    image("a.png")
    run("compress", "a.png", "--model", "given")
    run("compress", "a.png", "--force")
    monkeypatch.delenv(shipped.MODEL_VARIABLE)
    run("compress", "a.png", "--force")
    # A file names the model that made it.
    assert run("decompress", "a.fahj", "-o", "b.png") == 1
    said = capsys.readouterr().err
    assert f"a.fahj: the file was made with model {MODEL_ID.hex()}, which is none of" in said
    assert "give the folder of that model, or fetch it with `fa-hific get-model`" in said
    monkeypatch.setattr(shipped, "with_id", {MODEL_ID: "its maker"}.get)
    assert run("decompress", "a.fahj", "-o", "b.png") == 0
    assert [model.name for model in models] == ["given", "verbatim", "lite", "its maker"]


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
    run("compress", "in/a.png", "--model", "gains", "--quality", "0.75")
    run("compress", "in/a.png", "--model", "gains", "--bpp", "0.4", "--force")
    assert [model.calls[0]["quality"] for model in models[2:]] == [0.75, 0.04]
    run("decompress", "in/a.fahj", "--model", "gains", "--detail", "0.5", "-o", "b.png")
    assert models[4].calls[0]["detail"] == 0.5


def test_metadata_come_back_on_request_alone(models):
    image("a.png")
    exif, date = Image.Exif(), "2019:05:06 07:08:09"
    exif[0x0112], exif[0x8769] = 3, {0x9003: date}
    Image.open("a.png").save("a.jpg", exif=exif.tobytes())
    for option, expected in (["--keep-metadata"], date), ([], None):
        run("compress", "a.jpg", "-o", "b.fahj", "--force", *option)
        assert run("decompress", "b.fahj", "-o", "b.jpg", "--force") == 0
        with Image.open("b.jpg") as opened:
            told = opened.getexif()
        assert told.get_ifd(0x8769).get(0x9003) == expected and told.get(0x0112, 1) == 1


def test_the_rate_that_is_asked_for_counts_transparency_and_metadata(models, monkeypatch, capsys):
    alpha = image("a.png", bands=4)[..., 3]
    exif = Image.Exif()
    exif[0x0132] = "2019:05:06 07:08:09"
    Image.open("a.png").save("b.png", exif=exif)
    asked = []
    monkeypatch.setattr(FakeModel, "quality_for", lambda self, *_, **options: asked.append(options))
    run("compress", "a.png", "--model", "gains", "--bpp", "0.4")
    size = Path("a.fahj").stat().st_size
    note = f"note: a.png: the smallest possible file has {8 * size / 54:.3g} bits per pixel"
    assert note in capsys.readouterr().err
    run("compress", "b.png", "--model", "gains", "--bpp", "400", "--keep-metadata")
    assert "note:" not in capsys.readouterr().err
    for options in asked:
        np.testing.assert_array_equal(options["alpha"], alpha)
    assert asked[0]["reserved"] == 0
    assert asked[1]["reserved"] >= Path("b.fahj").stat().st_size - size > 20


def test_drop_alpha_lays_on_white(models):
    Image.fromarray(np.array([[[9, 9, 9, 0], [1, 2, 3, 255]]], np.uint8)).save("a.png")
    run("compress", "a.png", "--drop-alpha")
    assert run("decompress", "a.fahj", "-o", "b.png") == 0
    np.testing.assert_array_equal(pixels_of("b.png"), [[[255, 255, 255], [1, 2, 3]]])


# What is said.


def test_bad_files_are_passed_and_named_at_the_end(models, capsys):
    for i in range(6):
        image(f"in/{i}.png")
    image("in/x.png", 13)  # runs out of memory
    for name in ("in/2b.png", "in/9.jpg"):
        Path(name).write_bytes(b"bad")
    assert run("compress", "in", "-o", "out", "--jobs", "3") == 1
    assert written("out") == [f"{i}.fahj" for i in range(6)]
    progress, *errors = capsys.readouterr().err.splitlines()
    assert progress.startswith("9/9 images, ")
    assert [line.partition(" (")[0] for line in errors] == [
        "error: in/2b.png: cannot be read as an image",
        "error: in/9.jpg: cannot be read as an image",
        "error: in/x.png: not enough memory: free some, or use smaller images or batches",
    ]


def test_what_cannot_be_written_is_named(models, capsys):
    image("a.png", bands=4)
    Path("file").write_bytes(b"")
    assert run("compress", "a.png", "-o", "file/x/a.fahj") == 1
    assert capsys.readouterr().err.startswith("error: a.png: Not a directory (file")
    run("compress", "a.png")
    assert run("decompress", "a.fahj", "-o", "b.jpg") == 1
    assert "JPEG cannot hold transparency: write PNG" in capsys.readouterr().err
    assert run("decompress", "a.fahj", "-o", "b.jpg", "--drop-alpha") == 0


def test_notes_do_not_mix_with_the_bytes_on_standard_output(models, capfdbinary):
    animation("a.gif")
    assert run("compress", "a.gif", "-o", "-") == 0
    out, err = capfdbinary.readouterr()
    assert err == b"note: a.gif: only the first of its frames or pages is kept\n"
    assert bitstream.unpack(out).width == 3


def test_info_tells_sizes_of_all_parts_and_names_what_is_damaged(models, capsys):
    image("in/a.png", bands=4)
    image("in/b.png")
    run("compress", "in")
    capsys.readouterr()
    assert run("info", "in", "--json") == 0
    first, second = json.loads(capsys.readouterr().out)
    data = Path("in/a.fahj").read_bytes()
    parts = first.pop("bytes")
    assert parts["file"] == len(data) == sum(parts[k] for k in ("header", "z", "y", "alpha"))
    assert parts["alpha"] > 0 == second["bytes"]["alpha"]
    assert (first["width"], first["height"], first["alpha"]) == (9, 6, True)
    assert first["bpp"] == pytest.approx(8 * len(data) / 54)
    assert first["model_id"] == MODEL_ID.hex()
    Path("c.fahj").write_bytes(bitstream.pack(bitstream.unpack(data)._replace(quality=51)))
    Path("d.fahj").write_bytes(b"FAHJ")
    assert run("info", "[cd].fahj") == 1
    out, err = capsys.readouterr()
    assert "image   9 x 6 pixels, with transparency\n" in out and ", quality 0.200" in out
    assert err.startswith("error: d.fahj: the file is truncated") and err.count("\n") == 1


@pytest.mark.parametrize("bug", [KeyError("bug"), ValueError("Invalid value of a bug")])
def test_a_bug_keeps_its_traceback(models, monkeypatch, bug):
    def compress(*_, **__):
        raise bug

    image("a.png")
    monkeypatch.setattr(FakeModel, "compress", compress)
    with pytest.raises(type(bug), match="bug"):
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


# Threads and processes.


def test_threads_never_hold_more_than_they_may():
    jobs = [files.Job(Path(f"{i}"), Path(f"{i}.out")) for i in range(30)]
    lock, held, most, order, ended = threading.Lock(), set(), [0], [], []

    def read(job):
        with lock:
            held.add(job.source)
            most.append(len(held))
        return job.source

    def work(source):
        order.append(source)
        return source

    def write(job, done):
        time.sleep(0.001)
        with lock:
            held.discard(done)

    assert batch.run(jobs, (read, work, write), 3, ended.append) == []
    assert order == [job.source for job in jobs] and ended == jobs
    assert not held and max(most) <= 3 + 1 + 3 + 1  # ahead, at work, behind, one changing hands


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
            batch.run(jobs, (read, work, lambda job, done: None), 1, lambda job: None)
        ended.set()

    threading.Thread(target=interrupted, daemon=True).start()
    assert ended.wait(5)
    released.set()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_it_leaves_no_half_image_and_asked_to_end_it_tidies_up(models, how):
    pixels = image("0.png", 300, 300)
    run("compress", "0.png", "-o", "in/0.fahj")
    for i in range(1, 30):
        shutil.copy("in/0.fahj", f"in/{i}.fahj")
    process = started("decompress", "in", "-o", "out")
    while process.poll() is None and len(list(Path("out").glob("*.png"))) < 3:
        time.sleep(0.001)
    assert b"Traceback" not in stopped(process, how)
    images = [name for name in written("out") if name.endswith(".png")]
    assert 3 <= len(images) < 30 and (how == signal.SIGKILL or images == written("out"))
    for name in images:
        np.testing.assert_array_equal(pixels_of(f"out/{name}"), pixels)
