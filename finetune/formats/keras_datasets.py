"""Which HDF5 dataset of a Keras file a variable is loaded from: by what the loader does, not by names.

The names of datasets differ between versions of Keras and between its two formats. So every dataset that could be
a running statistic gets a number of its own, in a copy, and the loaded model says where each number arrived.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from finetune.errors import ModelError
from finetune.formats.keras_archive import FREE, INFLATION


@dataclass(frozen=True)
class Dataset:
    """A vector of floating-point numbers whose bytes lie in one piece. offset: in the HDF5 file."""

    offset: int
    length: int
    dtype: np.dtype


def vectors(weights: bytes, path: Path) -> dict[str, Dataset]:
    """By name. weights: an HDF5 file. Raises ModelError for one that would inflate."""
    found: dict[str, Dataset] = {}

    def note(name: str, thing: h5py.HLObject) -> None:
        if not isinstance(thing, h5py.Dataset):
            return
        if thing.nbytes > max(FREE, INFLATION * thing.id.get_storage_size()):
            raise ModelError(
                f"{path}: {name!r} would inflate more than {INFLATION} times; do not trust this file"
            )
        # no offset: in pieces, compressed, or in another file
        offset = thing.id.get_offset()
        if offset is not None and len(thing.shape) == 1 and thing.dtype.kind == "f":
            found[name] = Dataset(offset, thing.shape[0], thing.dtype)

    with h5py.File(io.BytesIO(weights)) as file:
        file.visititems(note)
    return found


def patched(weights: bytes, datasets: Mapping[str, Dataset], values: Mapping[str, NDArray]) -> bytes:
    """The HDF5 file with other values in some vectors, rounded to their dtypes."""
    changed = bytearray(weights)
    for name, new in values.items():
        dataset = datasets[name]
        raw = np.asarray(new).astype(dataset.dtype).tobytes()
        changed[dataset.offset : dataset.offset + len(raw)] = raw
    return bytes(changed)


def marked(datasets: Mapping[str, Dataset]) -> dict[str, NDArray]:
    """Per dataset a constant of its own: 1, 2, 3, ..., which even float16 tells apart up to 2,048."""
    return {
        name: np.full(dataset.length, number + 1.0) for number, (name, dataset) in enumerate(datasets.items())
    }


def arrived(values: NDArray, markers: Mapping[str, NDArray]) -> str | None:
    """The dataset whose number a variable has after loading; None where it has none."""
    names = [name for name, marker in markers.items() if np.array_equal(values, marker)]
    return names[0] if len(names) == 1 else None
