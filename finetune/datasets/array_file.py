"""Images and labels as arrays in one .npz file: written from Python, read by recipes. No pickle, ever."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finetune.damaged_archive import DAMAGED
from finetune.datasets.base import SPLIT_NAMES
from finetune.errors import DataError, InputError, OutputError, first_line

LARGEST = 32 * 2**30
"""Bytes of the arrays together: they are in memory while a run lasts."""

Pair = tuple[ArrayLike, ArrayLike]


@dataclass(frozen=True)
class ArrayFile:
    """By split, or under "" where nothing says which: images uint8 (count, height, width, 1 or 3), labels int32
    (count,), or, where images show several classes or none, 0 and 1 (count, classes)."""

    images: Mapping[str, NDArray[np.uint8]]
    labels: Mapping[str, NDArray[np.int32]]
    class_names: tuple[str, ...]

    @property
    def multi_label(self) -> bool:
        return next(iter(self.labels.values())).ndim == 2


def save_arrays(
    path: str | Path,
    train: Pair,
    validation: Pair | None = None,
    test: Pair | None = None,
    calibration: Pair | None = None,
    *,
    class_names: Sequence[str] | None = None,
) -> Path:
    """Write what `data: {source: arrays, path: ...}` reads, and return where.

    Each split is (images, labels): uint8 (count, height, width, 3), or without the last axis where they are grey, and
    whole numbers from 0, (count,) or (count, 1), or 0 and 1 (count, classes) where an image may show several. With
    `train` alone the recipe's fractions divide it.
    Raises InputError with every problem, OutputError where the file cannot be written; nothing is left then.
    """
    given = {"train": train, "validation": validation, "test": test, "calibration": calibration}
    held = {
        name: (np.asarray(pair[0]), np.asarray(pair[1])) for name, pair in given.items() if pair is not None
    }
    if list(held) == ["train"]:
        held = {"": held["train"]}
    held = {name: (images, _flat(labels)) for name, (images, labels) in held.items()}
    names = tuple(class_names) if class_names is not None else None
    if problems := [*_problems(held, names)]:
        raise InputError([f"save_arrays: {problem}" for problem in problems])
    arrays: dict[str, Any] = {
        _key(name, what): array
        for name, pair in held.items()
        for what, array in zip(("images", "labels"), pair, strict=True)
    }
    if names is not None:
        arrays["class_names"] = np.array(names, dtype=str)
    return _written(Path(path).expanduser(), arrays)


def read_arrays(path: Path) -> ArrayFile:
    """Raises DataError with every problem found."""
    arrays = _loaded(path)
    splits = ["" for _ in range("images" in arrays)] or [
        name for name in SPLIT_NAMES if f"{name}_images" in arrays
    ]
    if not splits:
        raise DataError(
            f"data.path: {path} has no array images or train_images, but {', '.join(arrays) or 'none'}; "
            "finetune.save_arrays writes such files"
        )
    problems = [f"no array {_key(name, 'labels')}" for name in splits if _key(name, "labels") not in arrays]
    if splits != [""]:
        problems += [
            f"no array {name}_images" for name in ("train", "validation", "test") if name not in splits
        ]
    if not problems:
        held = {name: (arrays[_key(name, "images")], _flat(arrays[_key(name, "labels")])) for name in splits}
        names = tuple(map(str, arrays["class_names"])) if "class_names" in arrays else None
        problems = [*_problems(held, names)]
    if problems:
        raise DataError([f"data.path: {path}: {problem}" for problem in problems])
    return ArrayFile(
        {name: _with_channels(images) for name, (images, _) in held.items()},
        {name: labels.astype(np.int32) for name, (_, labels) in held.items()},
        names or tuple(map(str, range(_classes(labels for _, labels in held.values())))),
    )


def _problems(
    held: Mapping[str, tuple[NDArray[Any], NDArray[Any]]], names: Sequence[str] | None
) -> Iterator[str]:
    widths = [labels.shape[1] for _, labels in held.values() if labels.ndim == 2]
    for name, (images, labels) in held.items():
        image_key, label_key = _key(name, "images"), _key(name, "labels")
        if images.dtype != np.uint8:
            yield f"{image_key}: expected uint8, 0..255, got {images.dtype}; (x * 255).astype('uint8') of 0..1"
        if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)):
            yield f"{image_key}: expected (count, height, width, 3) or (count, height, width), got {images.shape}"
        elif 0 in images.shape:
            yield f"{image_key}: holds no pixel, {images.shape}"
        if labels.ndim and len(labels) != len(images):
            yield f"{label_key}: {len(labels)} labels of {len(images)} images"
        said = _flag_problem(labels, max(widths)) if widths else _number_problem(labels, names)
        if said:
            yield f"{label_key}: {said}"
    if names is not None and len(set(names)) < len(names):
        yield "class_names: a name is there twice"
    together = [labels for _, labels in held.values()]
    yield from _flags_together(together, names) if widths else _numbers_together(together)


def _number_problem(labels: NDArray[Any], names: Sequence[str] | None) -> str:
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        return f"expected whole numbers (count,), got {labels.dtype} {labels.shape}"
    if len(labels) and labels.min() < 0:
        return f"expected numbers from 0, got {labels.min()}"
    if names is not None and len(labels) and labels.max() >= len(names):
        return f"got {labels.max()}, and there are {len(names)} class names"
    return ""


def _flag_problem(labels: NDArray[Any], classes: int) -> str:
    if labels.ndim == 2 and labels.shape[1] == classes and np.isin(labels, (0, 1)).all():
        return ""
    return f"expected 0 and 1 (count, {classes}), got {labels.dtype} {labels.shape}"


def _numbers_together(each: Sequence[NDArray[Any]]) -> Iterator[str]:
    numbered = [labels for labels in each if labels.size and np.issubdtype(labels.dtype, np.integer)]
    if numbered and max(int(labels.max()) for labels in numbered) < 1:
        yield "labels: one class only; at least two are needed"


def _flags_together(each: Sequence[NDArray[Any]], names: Sequence[str] | None) -> Iterator[str]:
    classes = max(labels.shape[1] for labels in each if labels.ndim == 2)
    if names is not None and len(names) != classes:
        yield f"class_names: {len(names)} names of {classes} columns of labels"
    if all(labels.ndim == 2 and (labels.sum(axis=1) == 1).all() for labels in each):
        yield "labels: every image has exactly one class; give their numbers, labels.argmax(1)"


def _classes(labels: Iterable[NDArray[Any]]) -> int:
    return max(each.shape[1] if each.ndim == 2 else 1 + int(each.max()) for each in labels)


def _flat(labels: NDArray[Any]) -> NDArray[Any]:
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _with_channels(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return images[..., None] if images.ndim == 3 else images


def _key(split: str, what: str) -> str:
    return f"{split}_{what}" if split else what


def _loaded(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > LARGEST:
            raise DataError(
                f"data.path: {path} holds {size / 2**30:.0f} GiB, and {LARGEST / 2**30:.0f} fit; keep so many images "
                "as files (source: image_folder)"
            )
        with np.load(path, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        # NumPy hands out the bytes of members that do not begin as an array does
        if other := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
            raise ValueError(f"{other[0]} is no array")
        return arrays
    except FileNotFoundError as error:
        raise DataError(f"data.path: there is no file {path}; finetune.save_arrays writes one") from error
    except DAMAGED as error:
        raise DataError(
            f"data.path: {path} is damaged, or no .npz file of plain arrays: {first_line(error)}"
        ) from error


def _written(path: Path, arrays: Mapping[str, Any]) -> Path:
    if path.suffix != ".npz":
        raise OutputError(f"save_arrays: {path}: expected a name that ends in .npz")
    part = path.with_name(f"{path.stem}.part.npz")
    try:
        np.savez_compressed(part, allow_pickle=False, **arrays)
        part.replace(path)
    except OSError as error:
        raise OutputError(f"save_arrays: {path}: cannot be written ({error.strerror})") from error
    finally:
        part.unlink(missing_ok=True)
    return path
