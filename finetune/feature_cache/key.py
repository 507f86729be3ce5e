"""What a row of features depends on, as one SHA-256."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops


def network_digest(features: keras.Model) -> str:
    """Of network, preprocessing, precision, weights and versions: 64 hexadecimal digits.

    features: from raw images to features, preprocessing inside; the precision of every layer is in its
    architecture. Layers that Keras numbers (`add_17`) differ when a network is built twice in one process: the second
    finds nothing, but never something wrong.
    """
    digest = hashlib.sha256(json.dumps([features.to_json(), _versions()]).encode())
    for variable in features.weights:
        values = np.ascontiguousarray(ops.convert_to_numpy(variable))
        digest.update(f"{variable.dtype} {values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def key_of(network: str, images: Mapping[str, Any]) -> str:
    """Of the rows: network is its digest, images plain values that decide which there are, in which order, and how
    they look."""
    return hashlib.sha256(json.dumps([network, images], sort_keys=True).encode()).hexdigest()


def _versions() -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in ("tensorflow", "keras", "keras-cv")}
