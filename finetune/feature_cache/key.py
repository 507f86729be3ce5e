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


def key_of(features: keras.Model, images: Mapping[str, Any]) -> str:
    """SHA-256, 64 hexadecimal digits, of network, preprocessing, precision, weights, images and versions.

    features: from raw images to features, preprocessing inside; the precision of every layer is in its
    architecture. images: plain values that decide which images there are, in which order, and how they look.
    Layers that Keras numbers (`add_17`) differ when a network is built twice in one process: the second finds
    nothing, but never something wrong.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps([features.to_json(), images, _versions()], sort_keys=True).encode())
    for variable in features.weights:
        values = np.ascontiguousarray(ops.convert_to_numpy(variable))
        digest.update(f"{variable.dtype} {values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in ("tensorflow", "keras", "keras-cv")}
