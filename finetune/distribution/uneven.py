"""Batches that cannot be shared alike: a mean over unequal shares would not be that over the batch."""

from __future__ import annotations

from collections.abc import Mapping

from finetune.distribution.replicas import Replicas


def uneven_batches(replicas: Replicas, sizes: Mapping[str, set[int]]) -> list[str]:
    """One line a key for batch sizes that the number of replicas does not divide. sizes: by recipe key."""
    count = replicas.count
    return [
        f"{key}: batches of {', '.join(map(str, odd))} images cannot be shared alike by {count} replicas; "
        f"expected a multiple of {count}, as {max(odd[0] // count, 1) * count} "
        "(a training split that is smaller is one batch)"
        for key, found in sizes.items()
        if (odd := sorted(size for size in found if size % count))
    ]
