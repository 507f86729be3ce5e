"""Files of any kind are seen as a person would see them."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from finetune.datasets.picture import MOST_PIXELS, decode_picture


def file_of(picture, form="png", **options):
    content = io.BytesIO()
    picture.save(content, form, **options)
    return content.getvalue()


def pixel(picture, form="png", **options):
    """The first pixel of the decoded picture, after checking its shape and type."""
    decoded = decode_picture(file_of(picture, form, **options))
    assert decoded.dtype == np.uint8
    assert decoded.shape == (picture.height, picture.width, 3)
    return decoded[0, 0].tolist()


def test_rgb_stays_as_it_is():
    assert pixel(Image.new("RGB", (5, 4), (10, 20, 30))) == [10, 20, 30]


def test_grey_is_repeated():
    assert pixel(Image.new("L", (5, 4), 77)) == [77, 77, 77]


def test_black_and_white_becomes_0_and_255():
    assert pixel(Image.new("1", (5, 4), 1)) == [255, 255, 255]


@pytest.mark.parametrize(("value", "seen"), [(65535, 255), (0, 0), (257 * 100, 100)])
def test_16_bits_are_scaled_to_8(value, seen):
    deep = Image.fromarray(np.full((4, 5), value, np.uint16))
    assert pixel(deep) == [seen] * 3
    assert pixel(deep, "tiff") == [seen] * 3


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_over_white(mode):
    assert pixel(Image.new(mode, (5, 4), (0,) * (len(mode) - 1) + (0,))) == [255, 255, 255]
    assert pixel(Image.new(mode, (5, 4), (0,) * (len(mode) - 1) + (255,))) == [0, 0, 0]
    assert pixel(Image.new(mode, (5, 4), (0,) * (len(mode) - 1) + (127,))) == [128, 128, 128]


def test_a_transparent_colour_of_a_palette_is_white_too():
    palette = Image.new("P", (5, 4), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    assert pixel(palette) == [200, 100, 50]
    assert pixel(palette, transparency=1) == [255, 255, 255]


def test_cmyk_becomes_rgb():
    red, green, blue = pixel(Image.new("CMYK", (5, 4), (0, 255, 255, 0)), "jpeg", quality=100)
    assert red > 245
    assert green < 10
    assert blue < 10


def test_exif_rotation_is_applied():
    wide = Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    upright = decode_picture(file_of(wide, exif=exif))
    assert upright.tolist() == [[[255, 0, 0]], [[0, 0, 255]]]


def test_of_an_animation_the_first_picture_counts():
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    assert pixel(frames[0], "gif", save_all=True, append_images=frames[1:]) == [255, 0, 0]


@pytest.mark.parametrize("damage", [lambda c: b"", lambda c: b"no picture", lambda c: c[: len(c) // 2]])
def test_a_damaged_file_is_refused(damage):
    content = file_of(Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)))
    with pytest.raises(Exception, match=r".+"):
        decode_picture(damage(content))


def test_floating_point_pictures_are_refused():
    with pytest.raises(ValueError, match="floating-point"):
        decode_picture(file_of(Image.new("F", (5, 4), 0.5), "tiff"))


def of_size(width, height):
    """A PNG file whose header promises so many pixels."""
    content = file_of(Image.new("RGB", (5, 4)))
    header = b"IHDR" + struct.pack(">II", width, height) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(30_000, 30_000), (MOST_PIXELS // 9_000 + 1, 9_000)])
def test_a_picture_of_too_many_pixels_is_refused_before_any_is_decoded(size):
    content = of_size(*size)
    tracemalloc.start()
    try:
        with pytest.raises(Exception, match="pixels"):
            decode_picture(content)
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()
