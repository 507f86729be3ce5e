"""What travels with a model wherever it goes: its provenance and the reference statistics of its sites."""

from __future__ import annotations

import shutil
from pathlib import Path

from finetune.batchnorm.moments_file import REFERENCE
from finetune.recalibration.model_hash import PROVENANCE
from finetune.recalibration.versions import is_saved_model


def provenance_file(model: Path) -> Path:
    """Where a model's provenance lies, or would: model is a file, or the folder of a version."""
    return _companions(model) / PROVENANCE


def reference_file(model: Path) -> Path:
    """Where a model's reference statistics lie, or would (finetune.batchnorm.moments_file)."""
    return _companions(model) / REFERENCE


def carry_reference(model: Path, version: Path) -> None:
    """Copy a model's reference statistics, where it has some, to a version of it that is being built."""
    source, target = reference_file(model), reference_file(version)
    if source.is_file() and not target.exists():
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, target)


def _companions(model: Path) -> Path:
    folder = model if model.is_dir() else model.parent
    # TensorFlow leaves assets.extra alone
    return folder / "assets.extra" if is_saved_model(folder) else folder
