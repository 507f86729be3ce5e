"""The arithmetic of each change of the camera, one image at a time, values 0..255.

Kinds after ImageNet-C (Hendrycks & Dietterich 2019, arXiv:1903.12261); severities are this project's.
Lengths are shares of the image's side, so that an image of any size is changed alike.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Effect = Callable[[NDArray[np.float32], int, np.random.Generator], NDArray[np.float32]]

FOG_OPACITY = (0.1, 0.25, 0.5, 0.65, 0.8)
CONTRAST_KEPT = (0.8, 0.6, 0.4, 0.25, 0.12)
BRIGHTNESS_ADDED = (10, 25, 50, 80, 120)
NOISE_DEVIATION = (10, 20, 35, 50, 70)
BLUR_RADIUS = (0.02, 0.035, 0.05, 0.07, 0.09)
JPEG_QUALITY = (40, 20, 10, 6, 4)

FOG_CELLS = 4
FOG_BRIGHTNESS = (170.0, 255.0)


def apply_effect(
    kind: str, severity: int, images: NDArray[np.uint8], ids: Sequence[int | str]
) -> NDArray[np.uint8]:
    """Images uint8 (batch, height, width, 1 or 3), one id each -> the same shape, rounded back to uint8."""
    effect = EFFECTS[kind]
    changed = np.empty_like(images)
    for place, (image, image_id) in enumerate(zip(images, ids, strict=True)):
        values = effect(image.astype(np.float32), severity - 1, generator(kind, image_id))
        changed[place] = np.clip(np.rint(values), 0, 255)
    return changed


def generator(kind: str, image_id: int | str) -> np.random.Generator:
    """Random numbers that belong to one image; Python's own hash differs between processes."""
    digest = hashlib.sha256(f"{kind}:{image_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def fog(image: NDArray[np.float32], level: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Blend towards a bright smooth field: the scene keeps 1 - opacity of its contrast."""
    height, width, _ = image.shape
    cells = Image.fromarray(rng.uniform(*FOG_BRIGHTNESS, (FOG_CELLS, FOG_CELLS)).astype(np.float32))
    field = np.asarray(cells.resize((width, height), Image.Resampling.BICUBIC), np.float32)[..., None]
    opacity = FOG_OPACITY[level]
    return image * (1 - opacity) + field * opacity


def contrast(image: NDArray[np.float32], level: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Squeeze the values around mid-grey."""
    return (image - 127.5) * CONTRAST_KEPT[level] + 127.5


def brightness(image: NDArray[np.float32], level: int, rng: np.random.Generator) -> NDArray[np.float32]:
    return image + BRIGHTNESS_ADDED[level]


def noise(image: NDArray[np.float32], level: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Independent Gaussian noise on every value."""
    return image + NOISE_DEVIATION[level] * rng.standard_normal(image.shape, np.float32)


def blur(image: NDArray[np.float32], level: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Gaussian blur, its radius (standard deviation) a share of the shorter side."""
    radius = BLUR_RADIUS[level] * min(image.shape[:2])
    return from_picture(to_picture(image).filter(ImageFilter.GaussianBlur(radius)), image)


def jpeg(image: NDArray[np.float32], level: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Compress and decompress."""
    file = io.BytesIO()
    to_picture(image).save(file, "jpeg", quality=JPEG_QUALITY[level])
    return from_picture(Image.open(file), image)


def invert(image: NDArray[np.float32], level: int, rng: np.random.Generator) -> NDArray[np.float32]:
    return 255 - image


def to_picture(image: NDArray[np.float32]) -> Image.Image:
    """(height, width, 1 or 3) -> a grey or RGB picture; Pillow knows no third axis of length 1."""
    pixels = image.astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def from_picture(picture: Image.Image, like: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(picture, np.float32).reshape(like.shape)


EFFECTS: Mapping[str, Effect] = {
    "fog": fog,
    "contrast": contrast,
    "brightness": brightness,
    "noise": noise,
    "blur": blur,
    "jpeg": jpeg,
    "invert": invert,
}
