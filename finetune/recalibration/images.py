"""The pictures of a folder as a calibration set: a seeded sample of them, known by a hash of its list."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.datasets.folder_check import content_digests, corrupt_ids, listed
from finetune.datasets.folder_scan import Picture
from finetune.datasets.folder_split import in_random_order
from finetune.datasets.picture import decode_picture
from finetune.errors import DataError
from finetune.recalibration.picture_list import find_pictures

FEWER = "take fewer shares, smaller batches, or more --samples"
"""What to do where a share has no image."""

KEPT_IN_MEMORY = 1_000_000_000
"""Bytes of decoded pictures; a larger sample is decoded anew each time it is read."""


class FolderImages:
    """A sample of a folder, in an order set by the seed; it can be read any number of times.

    source: the folder's name. digest: hash of names and contents, whatever the order. class_names: what the labels
    count, where there are labels. notes: what a person should hear about the folder, a line each.
    """

    def __init__(
        self,
        source: str,
        pictures: Sequence[Picture],
        digest: str,
        class_names: tuple[str, ...] | None,
        notes: tuple[str, ...],
    ) -> None:
        self.source, self.pictures, self.digest = source, tuple(pictures), digest
        self.class_names, self.notes = class_names, notes
        self._kept: dict[int, NDArray[np.uint8]] = {}

    @property
    def count(self) -> int:
        return len(self.pictures)

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """(count,), in the order of the batches."""
        if self.class_names is None:
            return None
        return np.array([picture.label for picture in self.pictures], np.int64)

    def batches(self, image_size: int, batch_size: int) -> Iterator[NDArray[np.uint8]]:
        """RGB uint8 (batch, image_size, image_size, 3); the last one may be smaller."""
        if self.count * image_size * image_size * 3 <= KEPT_IN_MEMORY:
            if image_size not in self._kept:
                self._kept[image_size] = np.concatenate(list(self._decoded(image_size, batch_size)))
            for start in range(0, self.count, batch_size):
                yield self._kept[image_size][start : start + batch_size]
        else:
            yield from self._decoded(image_size, batch_size)

    def _decoded(self, image_size: int, batch_size: int) -> Iterator[NDArray[np.uint8]]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, self.count, batch_size):
                chunk = self.pictures[start : start + batch_size]
                yield np.stack(list(pool.map(lambda picture: _square(picture, image_size), chunk)))


def open_folder(
    folder: Path,
    samples: int | None = None,
    seed: int = 0,
    *,
    labelled: bool = False,
    class_names: Sequence[str] | None = None,
    keep: Callable[[int], bool] | None = None,
) -> FolderImages:
    """Up to `samples` readable pictures below a folder, drawn at random, each read once to see that it can be.

    labelled: the folders right below are the classes, named as in `class_names` (all that the model knows, in its
    order) or, where that is not known, counted in alphabetical order. keep: of the sample, the places of those that are
    wanted; a picture that cannot be read is not replaced then, for nobody knows of those of the others.
    Raises DataError with every problem found.
    """
    found = find_pictures(folder, labelled, class_names)
    ordered = in_random_order(found.pictures, seed)
    if keep is not None:
        ordered = [picture for place, picture in enumerate(ordered[:samples]) if keep(place)]
        if not ordered:
            raise DataError(
                f"{folder}: no batch is left for this share of {len(found.pictures)} pictures; {FEWER}"
            )
    chosen, digests = _readable(ordered, samples)
    corrupt = corrupt_ids(digests)
    if not chosen:
        raise DataError(f"{folder}: none of its {len(digests)} pictures can be read ({listed(corrupt)})")
    notes = list(found.notes)
    if corrupt:
        notes.append(
            f"{len(corrupt)} of {len(digests)} files left out, because they cannot be read as images: {listed(corrupt)}"
        )
    return FolderImages(folder.name, chosen, list_digest(chosen, digests), found.class_names, tuple(notes))


def list_digest(pictures: Sequence[Picture], digests: Mapping[str, str | None]) -> str:
    """SHA-256, in hexadecimal, of the sorted names and content hashes."""
    lines = sorted(f"{digests[picture.id]} {picture.id}\n" for picture in pictures)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _readable(
    pictures: Sequence[Picture], samples: int | None
) -> tuple[list[Picture], dict[str, str | None]]:
    """The first `samples` that can be decoded, and the hashes of all that were tried."""
    wanted = len(pictures) if samples is None else samples
    chosen: list[Picture] = []
    digests: dict[str, str | None] = {}
    while len(chosen) < wanted and len(digests) < len(pictures):
        tried = pictures[len(digests) : len(digests) + wanted - len(chosen)]
        digests |= content_digests(tried)
        chosen += [picture for picture in tried if digests[picture.id]]
    return chosen, digests


def _square(picture: Picture, image_size: int) -> NDArray[np.uint8]:
    # TensorFlow resizes, as it does inside of exported models: another library would move the statistics
    from finetune.datasets.resize import to_square_uint8

    try:
        image = decode_picture(picture.path.read_bytes())
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads to
        raise DataError(f"{picture.path}: changed since it was first read: {error}") from error
    square: NDArray[np.uint8] = np.asarray(to_square_uint8(image[None], image_size))[0]
    return square
