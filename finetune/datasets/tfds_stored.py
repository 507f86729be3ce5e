"""Stored examples of a TFDS dataset, opened once a process: TFDS builds and traces its reader anew each time."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

_OPENED: dict[tuple[Any, ...], tf.data.Dataset] = {}
"""By all that decides what is read. A dataset of TensorFlow holds a description and no image."""


def stored_examples(builder: tfds.core.DatasetBuilder, expression: str) -> tf.data.Dataset:
    """(image, id, label) in the order of the files. TFDS' ids name a file and a position in it: an image keeps its id
    in every sub-split."""
    stored = builder.info.splits
    files = tuple((name, tuple(info.shard_lengths), info.num_bytes) for name, info in sorted(stored.items()))
    key = (str(builder.data_dir), files, expression)
    if key not in _OPENED:
        read = tfds.ReadConfig(add_tfds_id=True, try_autocache=False)
        examples = builder.as_dataset(split=expression, shuffle_files=False, read_config=read)
        _OPENED[key] = examples.map(lambda example: (example["image"], example["tfds_id"], example["label"]))
    return _OPENED[key]
