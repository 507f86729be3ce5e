"""Layers of other packages inside a .keras file, which Keras finds only once their package is imported."""

from __future__ import annotations

import importlib
import zipfile
from contextlib import suppress
from pathlib import Path

from finetune.damaged_archive import DAMAGED

LATE = {"keras_hub": "keras-hub"}
"""By module, how the package is called: those that are not imported at every start, as keras-cv is."""


def layer_packages(path: Path) -> list[str]:
    """The modules out of LATE whose layers the file at `path` names; none where it is not readable."""
    with suppress(*DAMAGED), zipfile.ZipFile(path) as archive:
        config = archive.read("config.json")
        return [module for module in LATE if module.encode() in config]
    return []


def import_layer_packages(path: Path) -> None:
    """Import them. One that is not installed is left out: Keras then names the layer it does not know."""
    for module in layer_packages(path):
        with suppress(ImportError):
            importlib.import_module(module)
