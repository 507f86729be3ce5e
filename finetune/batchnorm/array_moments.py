"""Population moments of an array in one reading of it, for runtimes whose tensors are NumPy's.

Sums of values and of squares are taken in float32 over short rows, in pieces that lie in the cache, and added up in
float64. What is lost of the variance that way grows with the square of |mean| / sd: channels where it would show are
read again, less what is near their mean.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from finetune.batchnorm.moments import Float64, PopulationMoments

ROW = 2048
"""Values that are added up in float32 at most."""

SHORT = 32
"""Rows of fewer values are not worth a sum of their own."""

IN_CACHE = 1 << 18
"""Values that are read twice in a row: 1 MB."""

NEAR_ZERO = 2.0
"""|mean| / sd up to which sums of squares will do: the variance is then off by 5 times their rounding at most."""


def array_moments(values: NDArray, *, precise: bool = False) -> PopulationMoments:
    """Of an array (batch, channels, ...), or (batch,) of one channel, of any kind of float. precise: all in float64.

    Mean and standard deviation are right to 2e-6 standard deviations, or to 1e-9 where precise, however far from zero
    they are (tests/batchnorm/test_array_moments.py).
    """
    flat = values.reshape(len(values), values.shape[1] if values.ndim > 1 else 1, -1)
    count = flat.shape[0] * flat.shape[2]
    if precise or flat.dtype == np.float64:
        return PopulationMoments(count, *_centred(flat))
    with np.errstate(invalid="ignore", over="ignore"):
        total, squares = _sums(flat, None)
        mean = total / count
        m2 = squares - total * mean
        far = np.flatnonzero(mean**2 * count > NEAR_ZERO**2 * m2)
    if len(far):
        mean[far], m2[far] = _around(flat if len(far) == len(mean) else flat[:, far], mean[far])
    # of values that are all the same, rounding may leave less than nothing
    return PopulationMoments(count, mean, np.maximum(m2, 0.0))


def _around(flat: NDArray, near: Float64) -> tuple[Float64, Float64]:
    """Mean and sum of squared distances from it, by channel, of values less what is near their mean.

    That difference is exact in float32 where it is small beside the values (Sterbenz 1974).
    """
    shift = near.astype(np.float32)
    total, squares = _sums(flat, shift)
    rest = total / (flat.shape[0] * flat.shape[2])
    return shift + rest, squares - total * rest


def _sums(flat: NDArray, shift: NDArray | None) -> tuple[Float64, Float64]:
    """Of the values less the shift and of their squares, by channel; flat: (batch, channels, positions)."""
    total, squares = np.zeros((2, flat.shape[1]))
    # over the images where rows are short, and over the positions otherwise: what is left is added up in float64
    rest, axis = ("cp", 1) if flat.shape[2] < SHORT else ("nc", 0)
    for block in _blocks(flat):
        values = block if shift is None else block - shift[:, np.newaxis]
        total += np.einsum(f"ncp->{rest}", values).sum(axis=axis, dtype=np.float64)
        squares += np.einsum(f"ncp,ncp->{rest}", values, values).sum(axis=axis, dtype=np.float64)
    return total, squares


def _blocks(flat: NDArray) -> Iterator[NDArray]:
    """Pieces that fit in the cache, of rows of ROW values."""
    images, channels, positions = flat.shape
    row = min(positions, ROW)
    step = min(max(IN_CACHE // (channels * row), 1), ROW)
    for first in range(0, images, step):
        for start in range(0, positions, row):
            yield flat[first : first + step, :, start : start + row].astype(np.float32, copy=False)


def _centred(flat: NDArray) -> tuple[Float64, Float64]:
    """Mean, and sum of squared distances from it, by channel, in float64; as many at once as the cache holds."""
    images, channels, positions = flat.shape
    mean, m2 = np.empty((2, channels))
    step = max(IN_CACHE // (images * positions), 1)
    for first in range(0, channels, step):
        some = slice(first, first + step)
        wide = flat[:, some].astype(np.float64)
        mean[some] = wide.mean(axis=(0, 2))
        wide -= mean[some, np.newaxis]
        m2[some] = np.einsum("ncp,ncp->c", wide, wide)
    return mean, m2
