"""Weights and images that are the same wherever they are drawn. Imports NumPy only."""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np


def state_dict(shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Each tensor from a seed of its name, of a size that keeps activations alive; float32."""
    return {name: tensor(name, shape) for name, shape in shapes.items()}


def tensor(name: str, shape: Sequence[int]) -> np.ndarray:
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) > 1:
        return random.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)
    if name.endswith("running_var"):
        return random.uniform(0.5, 2, shape).astype(np.float32)
    if name.endswith("weight"):
        return random.uniform(0.3, 1.2, shape).astype(np.float32)
    return random.normal(0, 0.2, shape).astype(np.float32)


def images(side: int) -> np.ndarray:
    """Two of them, scaled, (2, side, side, 3) float32."""
    return np.random.default_rng(side).normal(0, 1, (2, side, side, 3)).astype(np.float32)
