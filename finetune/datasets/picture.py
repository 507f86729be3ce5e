"""A picture file of any kind as RGB uint8, the way a person would see it."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})


MOST_PIXELS = 89_478_485
"""Of one picture: from here on Pillow warns of a decompression bomb. As RGB 270 MB, in each thread that decodes."""


def decode_picture(content: bytes) -> NDArray[np.uint8]:
    """The bytes of a file -> uint8 (height, width, 3).

    Turned as its EXIF data says; transparency lies over white; 16-bit values are scaled to 0..255; CMYK and
    palettes become RGB; grey is repeated; of an animation the first picture counts. Raises whatever Pillow
    raises for a file that is damaged, and ValueError for floating-point pictures and for those of more than
    MOST_PIXELS, of which no pixel is decoded.
    """
    with Image.open(io.BytesIO(content)) as file:
        if file.width * file.height > MOST_PIXELS:
            raise ValueError(f"{file.width} x {file.height} px; at most {MOST_PIXELS:,} pixels are read")
        return np.asarray(to_rgb(ImageOps.exif_transpose(file)))


def to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "F":
        raise ValueError("a floating-point picture, whose range is not known")
    if picture.mode.startswith("I"):
        deep = np.asarray(picture).clip(0, 65535)
        return Image.fromarray(np.rint(deep / 257).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        front = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", front.size, "white"), front).convert("RGB")
    return picture.convert("RGB")
