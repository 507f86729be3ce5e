"""Read every picture once before anything is trained: damaged files are named, all of them at once."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from finetune.datasets.folder_scan import Picture
from finetune.datasets.picture import decode_picture
from finetune.errors import DataError

NAMED = 10  # files that a message names; the others are counted


def content_digests(pictures: Sequence[Picture]) -> dict[str, str | None]:
    """By id, a hash of each file; None where it cannot be decoded."""

    def digest(picture: Picture) -> str | None:
        try:
            content = picture.path.read_bytes()
            decode_picture(content)
        except Exception:  # Pillow's decoders raise whatever a damaged file leads to
            return None
        return hashlib.sha256(content).hexdigest()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip((picture.id for picture in pictures), pool.map(digest, pictures), strict=True))


def without_corrupt(
    splits: Mapping[str, Sequence[Picture]],
    digests: Mapping[str, str | None],
    class_names: Sequence[str],
    skip: bool,
) -> dict[str, list[Picture]]:
    """The splits without damaged files. Raises DataError for them unless they are skipped, and for a class
    of which a split then has no image."""
    corrupt = corrupt_ids(digests)
    if corrupt and not skip:
        raise DataError(
            f"data.path: {listed(corrupt)} cannot be read as {'images' if len(corrupt) > 1 else 'an image'}; "
            "repair or remove, or write skip_corrupt: true"
        )
    kept = {name: [p for p in pictures if digests[p.id]] for name, pictures in splits.items()}
    problems = []
    for name, pictures in splits.items():
        lost = _shown(pictures) - _shown(kept[name])
        problems += [
            f"data.path: all {name} images of class {class_names[label]} are corrupt"
            for label in sorted(lost)
        ]
    if problems:
        raise DataError(problems)
    return kept


def _shown(pictures: Sequence[Picture]) -> set[int]:
    return {number for picture in pictures for number in picture.classes}


def corrupt_ids(digests: Mapping[str, str | None]) -> list[str]:
    return sorted(picture_id for picture_id, digest in digests.items() if digest is None)


def copies(splits: Mapping[str, Sequence[Picture]], digests: Mapping[str, str | None]) -> list[str]:
    """One line for every evaluated split that holds the very files that are trained on."""
    trained = Counter(digests[picture.id] for picture in splits["train"])
    lines = []
    for name in ("validation", "test"):
        twice = sorted(picture.id for picture in splits[name] if digests[picture.id] in trained)
        if twice:
            lines.append(f"{listed(twice)} in {name} {'are' if len(twice) > 1 else 'is'} in train too")
    return lines


def listed(ids: Sequence[str]) -> str:
    """The first few by name, the rest as a count."""
    rest = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return ", ".join(ids[:NAMED]) + rest
