"""A SavedModel copied with other values in some of its variables, and nothing else changed."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Mapping
from itertools import zip_longest
from pathlib import Path

import tensorflow as tf
from numpy.typing import ArrayLike
from tensorflow.core.protobuf import fingerprint_pb2

from finetune.errors import ModelError
from finetune.formats.tensor_bundle import TensorBundle

FINGERPRINT = "fingerprint.pb"
VARIABLES = Path("variables") / "variables"


def write_copy(
    source: Path, destination: Path, updates: Mapping[str, ArrayLike], check: Callable[[Path], None]
) -> int:
    """How many bytes differ. updates: new values by checkpoint key. check: called with the finished copy.

    The copy is made under another name beside its place and renamed when it is whole and `check` raised nothing.
    Raises ModelError, with nothing left behind.
    """
    source, destination = source.resolve(), destination.absolute()
    if destination.exists():
        raise ModelError(f"{destination}: exists; give a place that does not")
    if destination.is_relative_to(source):
        raise ModelError(f"{destination}: lies inside the model itself; give a place outside of it")
    made = next((p for p in reversed(destination.parents) if not p.exists()), None)
    unfinished = destination.with_name(f".{destination.name}.{uuid.uuid4().hex[:8]}")
    try:
        shutil.copytree(source, unfinished)
        changed = sum(TensorBundle(unfinished / VARIABLES).patch(updates).values())
        if changed:
            changed += _renew_fingerprint(unfinished)
        check(unfinished)
        unfinished.rename(destination)
    except BaseException as error:
        shutil.rmtree(made or unfinished, ignore_errors=True)
        if isinstance(error, OSError | shutil.Error):
            raise ModelError(f"{destination}: cannot be written ({error})") from error
        raise
    return changed


def _renew_fingerprint(folder: Path) -> int:
    """Make fingerprint.pb, where there is one, that of the changed checkpoint; how many of its bytes differ."""
    path = folder / FINGERPRINT
    if not path.exists():
        return 0
    before = path.read_bytes()
    fingerprint = fingerprint_pb2.FingerprintDef.FromString(before)
    index = (folder / VARIABLES).with_suffix(".index").read_bytes()
    fingerprint.checkpoint_hash = int.from_bytes(tf.fingerprint([index]).numpy()[0].tobytes(), "little")
    if fingerprint.uuid:
        fingerprint.uuid = str(uuid.uuid4().int)
    after = fingerprint.SerializeToString()
    path.write_bytes(after)
    return sum(a != b for a, b in zip_longest(before, after))
