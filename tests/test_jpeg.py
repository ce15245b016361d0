"""JPEG: further pictures, damaged segments, and a missing end told from missing pixels."""

import io

import numpy as np
import pytest
from image_files import check_read, saved, segment
from PIL import Image
from test_pixels import profile

from fa_hific_jax.data.images import read_image
from fa_hific_jax.errors import UserError

Y, X = np.mgrid[:70, :90]
PHOTO = np.stack([2 * X, 3 * Y, 128 + 90 * np.sin(X / 5 + Y / 7)], axis=-1).clip(0, 255)
PHOTO = (PHOTO + np.random.default_rng(0).normal(0, 6, PHOTO.shape)).clip(0, 255).astype(np.uint8)


def jpeg(**options) -> bytes:
    return saved(PHOTO, "JPEG", **options)


def inserted(data: bytes, *segments: bytes) -> bytes:
    return data[:2] + b"".join(segments) + data[2:]


def plain(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "quality": 98}])
@pytest.mark.parametrize("lost", [1, 2])
def test_a_missing_end_is_noted_and_costs_no_pixel(options, lost):
    data = jpeg(**options)
    check_read(data[:-lost], plain(data), "its end is missing, but all its pixels are there")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 98}])
def test_missing_pixels_are_refused_wherever_the_file_ends(options):
    data = jpeg(**options)
    scans = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    ends = [*range(scans[0] + 20, len(data) - 4, 211), len(data) - 6, len(data) - 40]
    # Each scan of a progressive file has tables of its own before it.
    ends += [data.rindex(b"\xff\xc4", 0, scan) for scan in scans[1:]]
    assert len(scans) > 3 or "progressive" not in options
    for end in ends:
        with pytest.raises(UserError, match="truncated"):
            read_image(data[:end])


def test_further_pictures_and_gain_maps_are_noted():
    note = "its further pictures, such as previews or gain maps, are left out"
    image = Image.fromarray(PHOTO)
    mpo = saved(image, "MPO", save_all=True, append_images=[image.resize((9, 7))])
    check_read(mpo, plain(jpeg()), note)
    check_read(inserted(jpeg(), segment(0xE2, b"MPF\0junk")), plain(jpeg()), note)
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x xmlns:hdrgm='http://ns.adobe.com/hdr-gain-map/1.0/'/>"
    check_read(inserted(jpeg(), segment(0xE1, xmp)), plain(jpeg()), "its HDR gain map is left out")


def test_segments_of_applications_cannot_keep_a_picture_from_being_read():
    junk = [segment(0xE0 + kind, b"JFIF\0") for kind in range(16)] + [segment(0xFE, b"")]
    check_read(inserted(jpeg(), *junk), plain(jpeg()))


def test_a_profile_in_pieces_is_applied_and_one_that_lacks_a_piece_noted():
    icc = profile(swap=True)
    pieces = [
        segment(0xE2, b"ICC_PROFILE\0" + bytes([i + 1, 2]) + part)
        for i, part in enumerate((icc[:300], icc[300:]))
    ]
    swapped = plain(jpeg())[..., [1, 0, 2]].astype(int)
    found = read_image(inserted(jpeg(), *pieces[::-1]))
    assert np.abs(found.rgb - swapped).mean() < 2 and found.notes == ()
    note = "its color profile is damaged or does not fit the image and was ignored"
    check_read(inserted(jpeg(), pieces[0]), plain(jpeg()), note)


def test_rgb_of_adobe_is_not_taken_for_ycbcr():
    red = np.full((16, 16, 3), (200, 30, 60), np.uint8)
    check_read(saved(red, "JPEG", quality=100, keep_rgb=True), red, atol=3)
