"""Classical codecs: real files of known settings, decoded again; what fails is told as it is."""

import io
import re
import sys

import numpy as np
import pytest
from image_files import saved
from PIL import Image, features

from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import baselines
from fa_hific_jax.evaluation.baselines import encode, encode_nearest, with_programs
from fa_hific_jax.metrics import psnr

PILLOW = ("jpeg", "webp", "avif", "jpeg2000", "jpegxl")


@pytest.fixture(params=PILLOW)
def codec(request) -> str:
    if reason := baselines.available()[request.param]:
        pytest.skip(reason)
    return request.param


def textured(height: int, width: int) -> np.ndarray:
    """Smooth color with noise whose strength grows to the right."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([128 + 90 * np.sin(x / 9), 128 + 90 * np.cos(y / 7), (x + y) % 256], -1)
    noise = generator.normal(size=(height, width, 3)) * (x / width * 40)[..., None]
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["jpeg", "webp"])
@pytest.mark.parametrize("bpp", [0.8, 3.0])
def test_no_neighboring_quality_comes_nearer_to_the_target(name, bpp):
    image, target = textured(64, 96), int(bpp * 64 * 96 / 8)
    coded = encode_nearest(image, name, target)
    quality = int(re.match(r"quality (\d+)", coded.setting)[1])
    for neighbor in {max(quality - 1, 1), min(quality + 1, 100)}:
        other = len(encode(image, name, neighbor).data)
        assert abs(len(coded.data) - target) <= abs(other - target)
    smallest, largest = (encode_nearest(image, name, target) for target in (1, 10**7))
    assert f"quality {baselines.codec(name).qualities[0]}," in smallest.setting
    assert "quality 100," in largest.setting


def test_sizes_are_those_of_the_documented_options():
    image, options = textured(64, 96), {"quality": 40, "subsampling": 2, "optimize": True}
    jpegs = [saved(image, "JPEG", progressive=p, **options) for p in (False, True)]
    assert encode(image, "jpeg", 40).data == min(jpegs, key=len)
    assert encode(image, "webp", 40).data == saved(image, "WEBP", quality=40, method=6)


def test_both_ends_of_the_range_can_be_coded_and_the_same_image_gives_the_same_bytes(codec):
    image = textured(48, 40)
    for quality in (baselines.codec(codec).qualities[i] for i in (0, -1)):
        first, second = (encode(image, codec, quality) for _ in range(2))
        assert first.image.shape == image.shape and first.data == second.data


@pytest.mark.parametrize("shape", [(1, 1, 3), (33, 2, 3)])
def test_the_image_is_what_the_file_decodes_to(codec, shape):
    coded = encode(textured(*shape[:2]), codec, baselines.codec(codec).sweep[4])
    with Image.open(io.BytesIO(coded.data)) as decoded:
        notes = [decoded.info.get(name, b"") for name in ("exif", "xmp", "comment")]
        assert not any(note.strip() for note in notes)
        np.testing.assert_array_equal(coded.image, np.asarray(decoded.convert("RGB")))
    assert coded.image.shape == shape and coded.image.dtype == np.uint8
    assert min(coded.seconds_encode, coded.seconds_decode) > 0


def test_larger_files_along_the_sweep_are_better_files(codec):
    image = textured(96, 128)
    small, middle, large = (
        encode(image, codec, baselines.codec(codec).sweep[i]) for i in (1, 5, -1)
    )
    assert len(small.data) < len(middle.data) < len(large.data)
    assert psnr(image, small.image) + 2 < psnr(image, large.image)


def test_jpeg_2000_reaches_the_rate_it_was_asked_for_with_a_color_transform():
    image = np.repeat(textured(128, 192)[..., :1], 3, axis=2)  # gray: chroma costs nothing
    coded = encode(image, "jpeg2000", 1000)
    assert coded.setting == "1 bpp asked, 9/7 wavelet"
    assert 8 * len(coded.data) / (128 * 192) == pytest.approx(1.0, rel=0.05)
    # Pillow's default leaves the transform out: three planes, not one.
    options = {"quality_layers": [24], "irreversible": True, "no_jp2": True, "mct": 0}
    without = np.asarray(Image.open(io.BytesIO(saved(image, "JPEG2000", **options))))
    assert psnr(image, coded.image) > psnr(image, without) + 2


def test_avif_keeps_the_chroma_of_single_pixels():
    image = np.full((32, 32, 3), 128, np.uint8)
    image[::2, ::2] = (200, 90, 60)  # 4:2:0 would mix it with its neighbors
    if reason := baselines.available()["avif"]:
        pytest.skip(reason)
    assert psnr(image, encode(image, "avif", 95).image) > 35


def test_a_non_monotone_size_is_searched_on_both_sides(monkeypatch):
    sizes = {q: 10 * q for q in range(101)} | {40: 401, 41: 395}
    image = np.zeros((1, 1, 3), np.uint8)
    data = encode_nearest(image, "webp", 0).data
    assert len(data) < 300
    changed = baselines._CODECS["webp"]._replace(
        encode=lambda _, quality: (data.ljust(sizes[quality], b"\0"), f"quality {quality}"),
        qualities=range(30, 101),
    )
    monkeypatch.setitem(baselines._CODECS, "webp", changed)
    assert encode_nearest(image, "webp", 400).setting == "quality 40"


def test_what_is_missing_is_named_with_the_mend(monkeypatch):
    monkeypatch.setattr(features, "check", lambda name: False)
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    monkeypatch.setenv("PATH", "")
    reasons = baselines.available()
    assert list(reasons) == [*PILLOW, "bpg", "vvc"]
    assert "was built without AVIF: install Pillow 11.3" in reasons["avif"]
    assert "install the extra `jpegxl`" in reasons["jpegxl"]
    assert reasons["bpg"] == "bpgenc and bpgdec are not on the PATH: install them"


@pytest.mark.parametrize(
    ("width", "name", "quality", "sentence"),
    [
        (8, "gif", 50, "unknown baseline codec 'gif': choose one of jpeg, webp"),
        (16384, "webp", 50, "16384x1 image does not fit into webp, .* end at 16383"),
        (8, "jpeg", 0, "jpeg has no quality 0: choose one of 1 to 100"),
        (8, "vvc", 50, "vvc cannot be measured: vvencapp and vvdecapp are not"),
    ],
)
def test_bad_requests_are_the_users_to_mend(monkeypatch, width, name, quality, sentence):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=sentence):
        encode(np.zeros((1, width, 3), np.uint8), name, quality)


@pytest.mark.parametrize("step", ["encode", "decode"])
@pytest.mark.parametrize("error", [OSError, RuntimeError, Image.DecompressionBombError])
def test_a_library_that_refuses_an_image_is_told_by_codec_and_size(error, step, monkeypatch):
    def refuse(*_):
        raise error("out of memory")

    changed = baselines._CODECS["webp"]._replace(**{step: refuse})
    monkeypatch.setitem(baselines._CODECS, "webp", changed)
    with pytest.raises(UserError, match=r"webp could not code a 5x4 image \(out of memory\): le"):
        encode(np.zeros((4, 5, 3), np.uint8), "webp", 50)


def test_versions_name_the_library_that_decides_on_the_size(codec):
    library = {"jpeg": "libjpeg", "webp": "libwebp", "avif": "libavif", "jpeg2000": "OpenJPEG"}
    named = library.get(codec, "pillow-jxl-plugin")
    assert re.match(rf"Pillow .*{named}\S* \d\S*$", baselines.codec(codec).version())


# Programs that take the options of the real ones: a coarser step makes a smaller file.
ENCODER = """
import sys, zlib
arguments = sys.argv[1:]
if arguments in (["-h"], ["--version"]):
    print("{name} version 0.0, a stand-in")
    sys.exit({version_code})
option = lambda name: arguments[arguments.index(name) + 1]
"""
BPGENC = """
from PIL import Image, features
assert [option(o) for o in ("-e", "-c", "-f", "-b", "-m")] == ["x265", "ycbcr", "444", "8", "9"]
picture, step = Image.open(arguments[-1]), 1 + int(option("-q"))
pixels = bytes(step * (value // step) for value in picture.tobytes())
size = b"%d %d " % picture.size
open(option("-o"), "wb").write(size + zlib.compress(pixels))
"""
BPGDEC = """
from PIL import Image, features
width, height, data = open(arguments[-1], "rb").read().split(b" ", 2)
Image.frombytes("RGB", (int(width), int(height)), zlib.decompress(data)).save(option("-o"))
"""
VVENCAPP = """
width, height = map(int, option("--size").split("x"))
assert option("--format") == "yuv420_10" and option("--qpa") == "0"
samples = open(option("--input"), "rb").read()
assert len(samples) == 3 * width * height and width % 2 == height % 2 == 0
step = 1 + int(option("--qp"))
coarse = bytearray(samples)
coarse[::2] = bytes(step * (value // step) for value in samples[::2])
open(option("--output"), "wb").write(zlib.compress(bytes(coarse)))
"""
VVDECAPP = """
data = zlib.decompress(open(option("--bitstream"), "rb").read())
open(option("--output"), "wb").write(data)
"""
SHORT = VVDECAPP.replace("write(data)", "write(data[:-2])")
SMALL = """
from PIL import Image, features
Image.new("RGB", (4, 4)).save(option("-o"))
"""


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """write(name, body): a stand-in on the PATH, which holds nothing else."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def write(name: str, body: str) -> None:
        head = ENCODER.format(name=name, version_code=int(name == "bpgenc"))
        file = tmp_path / name
        file.write_text(f"#!{sys.executable}\n{head}{body}")
        file.chmod(0o755)

    bodies = {"bpgenc": BPGENC, "bpgdec": BPGDEC, "vvencapp": VVENCAPP, "vvdecapp": VVDECAPP}
    for name, body in bodies.items():
        write(name, body)
    return write


@pytest.mark.parametrize(("name", "floor"), [("bpg", 45), ("vvc", 25)])
def test_programs_on_the_path_code_images_of_odd_sides(programs, name, floor):
    assert baselines.available()[name] is None
    image = textured(27, 33)
    image[..., 1:] = image[..., :1]  # gray, for VVC's chroma has half the size
    coarse, fine = (encode(image, name, quality) for quality in (40, 1))
    assert len(coarse.data) < len(fine.data)
    assert psnr(image, fine.image) > floor
    assert coarse.setting.startswith("qp 40, ")
    found = baselines.codec(name)
    assert "stand-in" in found.version()
    assert found.qualities[0] > found.qualities[-1]  # from small files to large ones


@pytest.mark.parametrize(
    ("name", "program", "body", "sentence"),
    [
        ("bpg", "bpgenc", "print('no luck', file=sys.stderr); sys.exit(3)", r"3 \(no luck\)"),
        ("bpg", "bpgenc", "", "bpgenc wrote nothing"),
        ("bpg", "bpgdec", SMALL, "a 8x8 image, it came back as 4x4"),
        ("vvc", "vvdecapp", SHORT, "wrote 190 bytes for"),
    ],
)
def test_what_programs_do_wrong_is_told(programs, name, program, body, sentence):
    programs(program, body)
    with pytest.raises(UserError, match=sentence):
        encode(textured(8, 8), name, 30)


def test_a_program_that_does_not_end_is_stopped(programs, monkeypatch):
    programs("vvencapp", "import time; time.sleep(60)")
    monkeypatch.setattr(with_programs, "SECONDS", 1)
    with pytest.raises(UserError, match="vvencapp took more than 1 s"):
        encode(textured(8, 8), "vvc", 30)
