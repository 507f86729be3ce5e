"""Reference statistics: what every site sees on the training images under the final weights.

A model trained with fixed running statistics no longer stores the population statistics of its own
training data: its weights moved under them. Whoever recalibrates it later has to know what each site
handed on, so every exported model carries these.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from finetune.batchnorm.moments import PopulationMoments

FILE_NAME = "reference_statistics.npz"


def save_reference(path: Path, reference: Mapping[str, PopulationMoments]) -> None:
    """Write site path -> moments; float64, in the order given. Read it back with `load_reference`."""
    moments = list(reference.values())
    arrays: dict[str, Any] = {
        "paths": np.array(list(reference), dtype=np.str_),
        "counts": np.array([m.count for m in moments], dtype=np.float64),
        **{f"mean_{i}": m.mean for i, m in enumerate(moments)},
        **{f"variance_{i}": m.variance for i, m in enumerate(moments)},
    }
    np.savez(path, **arrays)


def load_reference(path: Path) -> dict[str, PopulationMoments]:
    """Site path -> moments, in the order written. Never unpickles."""
    with np.load(path, allow_pickle=False) as arrays:
        return {
            str(site): PopulationMoments.of_batch(
                float(arrays["counts"][i]), arrays[f"mean_{i}"], arrays[f"variance_{i}"]
            )
            for i, site in enumerate(arrays["paths"])
        }
