"""Classical codecs: real files of known settings, decoded again; what fails is told as it is."""

import io
import sys

import numpy as np
import pytest
from PIL import Image, features

from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import baselines
from fa_hific_jax.evaluation.baselines import encode, encode_nearest, with_programs

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


def psnr(x: np.ndarray, x_hat: np.ndarray) -> float:
    error = np.mean(np.square(x.astype(float) - x_hat))
    return 10 * np.log10(255**2 / max(error, 1e-9))


def jpeg_size(image: np.ndarray, quality: int) -> int:
    sizes = []
    for progressive in (False, True):
        file = io.BytesIO()
        options = {"quality": quality, "subsampling": 2, "optimize": True}
        Image.fromarray(image).save(file, "JPEG", progressive=progressive, **options)
        sizes.append(len(file.getvalue()))
    return min(sizes)


def webp_size(image: np.ndarray, quality: int) -> int:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "WEBP", quality=quality, method=6)
    return len(file.getvalue())


SIZES = {"jpeg": jpeg_size, "webp": webp_size}


@pytest.mark.parametrize("name", ["jpeg", "webp"])
@pytest.mark.parametrize("bpp", [0.8, 1.5, 3.0])
def test_no_neighboring_quality_comes_nearer_to_the_target(name, bpp):
    image = textured(64, 96)
    target = int(bpp * 64 * 96 / 8)
    coded = encode_nearest(image, name, target)
    quality = int(coded.setting.split(",")[0].removeprefix("quality "))
    assert len(coded.data) == SIZES[name](image, quality)
    for neighbor in {max(quality - 1, 1), min(quality + 1, 100)}:
        miss = abs(SIZES[name](image, neighbor) - target)
        assert abs(len(coded.data) - target) <= miss


@pytest.mark.parametrize("name", ["jpeg", "webp"])
def test_targets_out_of_reach_give_the_extreme_qualities(name):
    image = textured(48, 40)
    lowest = 1 if name == "jpeg" else 0
    smallest, largest = encode_nearest(image, name, 1), encode_nearest(image, name, 10**7)
    assert f"quality {lowest}," in smallest.setting
    assert "quality 100," in largest.setting
    assert len(smallest.data) == SIZES[name](image, lowest) > 1


def test_both_ends_of_the_range_can_be_coded(codec):
    image = textured(48, 40)
    qualities = baselines.codec(codec).qualities
    for quality in (qualities[0], qualities[-1]):
        assert encode(image, codec, quality).image.shape == image.shape


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 37, 3), (33, 2, 3)])
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
    ends = [encode(image, codec, baselines.codec(codec).sweep[i]) for i in (1, 5, -1)]
    sizes = [len(coded.data) for coded in ends]
    assert sizes[0] < sizes[1] < sizes[2]
    assert psnr(image, ends[0].image) + 2 < psnr(image, ends[2].image)


def test_the_same_image_gives_the_same_bytes(codec):
    first, second = (encode(textured(40, 56), codec, 50).data for _ in range(2))
    assert first == second


def test_jpeg_takes_the_smaller_of_baseline_and_progressive():
    tiny, large = textured(8, 8), textured(128, 128)
    assert encode_nearest(tiny, "jpeg", 700).setting.endswith("4:2:0")
    assert encode_nearest(large, "jpeg", 8000).setting.endswith("4:2:0, progressive")


def test_jpeg_2000_reaches_the_rate_it_was_asked_for_with_a_color_transform():
    image = np.repeat(textured(128, 192)[..., :1], 3, axis=2)  # gray: chroma costs nothing
    coded = encode(image, "jpeg2000", 1000)
    assert coded.setting == "1 bpp asked, 9/7 wavelet"
    assert 8 * len(coded.data) / (128 * 192) == pytest.approx(1.0, rel=0.05)
    file = io.BytesIO()  # Pillow's default leaves the transform out: three planes, not one.
    Image.fromarray(image).save(
        file, "JPEG2000", quality_layers=[24], irreversible=True, no_jp2=True, mct=0
    )
    with Image.open(file) as picture:
        without = psnr(image, np.asarray(picture))
    assert psnr(image, coded.image) > without + 2


def test_avif_keeps_the_chroma_of_single_pixels():
    image = np.full((32, 32, 3), 128, np.uint8)
    image[::2, ::2] = (200, 90, 60)  # 4:2:0 would mix it with its neighbors
    if reason := baselines.available()["avif"]:
        pytest.skip(reason)
    assert psnr(image, encode(image, "avif", 95).image) > 35


def test_a_non_monotone_size_is_searched_on_both_sides(monkeypatch):
    sizes = {q: 10 * q for q in range(101)} | {40: 401, 41: 395}
    image = np.zeros((1, 1, 3), np.uint8)
    header = encode_nearest(image, "webp", 0).data
    assert len(header) < 300

    def fake(_, quality):
        return header.ljust(sizes[quality], b"\0"), f"quality {quality}"

    changed = baselines._CODECS["webp"]._replace(encode=fake, qualities=range(30, 101))
    monkeypatch.setitem(baselines._CODECS, "webp", changed)
    assert encode_nearest(image, "webp", 400).setting == "quality 40"


def test_bad_requests_are_the_users_to_mend():
    image = np.zeros((1, 16384, 3), np.uint8)
    with pytest.raises(UserError, match="unknown baseline codec 'gif': choose one of jpeg, webp"):
        encode_nearest(image, "gif", 100)
    with pytest.raises(UserError, match="16384x1 image does not fit into webp, .* end at 16383"):
        encode_nearest(image, "webp", 100)
    with pytest.raises(UserError, match="jpeg has no quality 0: choose one of 1 to 100"):
        encode(image[:, :8], "jpeg", 0)


@pytest.mark.parametrize("error", [OSError, ValueError, RuntimeError, Image.DecompressionBombError])
def test_a_library_that_refuses_an_image_is_told_by_codec_and_size(error, monkeypatch):
    def refuse(*_):
        raise error("out of memory")

    for step in ("encode", "decode"):
        changed = baselines._CODECS["webp"]._replace(**{step: refuse})
        with (
            monkeypatch.context() as patch,
            pytest.raises(
                UserError, match=r"webp could not code a 5x4 image \(out of memory\): leave this"
            ),
        ):
            patch.setitem(baselines._CODECS, "webp", changed)
            encode(np.zeros((4, 5, 3), np.uint8), "webp", 50)


def test_what_is_missing_is_named_with_the_mend(monkeypatch):
    image = np.zeros((8, 8, 3), np.uint8)
    monkeypatch.setattr(features, "check", lambda name: False)
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    monkeypatch.setenv("PATH", "")
    reasons = baselines.available()
    assert list(reasons) == [*PILLOW, "bpg", "vvc"]
    assert "was built without AVIF: install Pillow 11.3" in reasons["avif"]
    assert "install the extra `jpegxl`" in reasons["jpegxl"]
    assert reasons["bpg"] == "bpgenc and bpgdec are not on the PATH: install them"
    with pytest.raises(UserError, match="jpeg cannot be measured: .* built without JPEG"):
        encode_nearest(image, "jpeg", 100)
    with pytest.raises(UserError, match="vvc cannot be measured: vvencapp and vvdecapp are not"):
        encode_nearest(image, "vvc", 100)


def test_versions_name_the_library_that_decides_on_the_size(codec):
    library = {"jpeg": "libjpeg", "webp": "libwebp", "avif": "libavif", "jpeg2000": "OpenJPEG"}
    found = baselines.codec(codec).version()
    assert found.startswith("Pillow ") and library.get(codec, "pillow-jxl-plugin") in found
    assert found.rsplit(" ", 1)[1][0].isdigit()


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
from PIL import Image
assert [option(o) for o in ("-e", "-c", "-f", "-b", "-m")] == ["x265", "ycbcr", "444", "8", "9"]
picture, step = Image.open(arguments[-1]), 1 + int(option("-q"))
pixels = bytes(step * (value // step) for value in picture.tobytes())
size = b"%d %d " % picture.size
open(option("-o"), "wb").write(size + zlib.compress(pixels))
"""
BPGDEC = """
from PIL import Image
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


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """write(name, body): a stand-in on the PATH, which holds nothing else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def write(name: str, body: str) -> None:
        head = ENCODER.format(name=name, version_code=int(name == "bpgenc"))
        file = folder / name
        file.write_text(f"#!{sys.executable}\n{head}{body}")
        file.chmod(0o755)

    write("bpgenc", BPGENC)
    write("bpgdec", BPGDEC)
    write("vvencapp", VVENCAPP)
    write("vvdecapp", VVDECAPP)
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
    assert "stand-in" in baselines.codec(name).version()
    nearest = encode_nearest(image, name, len(fine.data))
    assert nearest.setting.startswith("qp 1, ")  # The search runs from large steps to small.


def test_what_programs_do_wrong_is_told(programs, monkeypatch):
    image = textured(8, 8)
    programs("bpgenc", "print('out of luck', file=sys.stderr); sys.exit(3)")
    with pytest.raises(UserError, match=r"bpgenc failed with code 3 \(out of luck\)"):
        encode(image, "bpg", 30)
    programs("bpgenc", "")
    with pytest.raises(UserError, match="bpgenc wrote nothing"):
        encode(image, "bpg", 30)
    programs("bpgenc", BPGENC.replace("% picture.size", "% (4, 4)"))
    programs("bpgdec", BPGDEC.replace("zlib.decompress(data)", "bytes(48)"))
    with pytest.raises(UserError, match="bpg could not code a 8x8 image, it came back as 4x4"):
        encode(image, "bpg", 30)
    programs("vvdecapp", VVDECAPP.replace("write(data)", "write(data[:-2])"))
    with pytest.raises(UserError, match="vvdecapp wrote 190 bytes for a 8x8 picture in place of"):
        encode(image, "vvc", 30)
    programs("vvdecapp", "import time; time.sleep(60)")
    monkeypatch.setattr(with_programs, "SECONDS", 1)
    with pytest.raises(UserError, match="vvdecapp took more than 1 s"):
        encode(image, "vvc", 30)
