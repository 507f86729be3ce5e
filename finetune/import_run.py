"""`finetune import`: a PyTorch state dict as a .keras file that recipes name, with where it came from beside it."""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import dataclass
from pathlib import Path

from finetune.backbones.torch_file import read_state_dict
from finetune.backbones.weights_file import digest
from finetune.batchnorm.sites import find_sites
from finetune.errors import OutputError, WeightsError
from finetune.torch_import import import_state_dict
from finetune.whole_file import write_whole


@dataclass(frozen=True)
class ImportedFile:
    """path: of the .keras file. sites: BN sites; classes: of its classifier."""

    path: Path
    layout: str
    sites: int
    parameters: int
    classes: int
    image_size: int


def import_weights(source: Path, out: Path, image_size: int = 224) -> ImportedFile:
    """Write `out` (.keras) and out.provenance.json.

    Raises WeightsError where the state dict cannot be read or is of no known network, OutputError where the file is
    there or cannot be written; nothing is left then.
    """
    import numpy as np

    if out.suffix != ".keras":
        raise OutputError(f"{out}: expected a name that ends in .keras")
    if out.exists():
        raise OutputError(f"{out}: is there already; remove it, or choose another name with --out")
    tensors = read_state_dict(source)
    try:
        imported = import_state_dict(tensors, image_size, re.sub(r"[^A-Za-z0-9_.-]", "_", source.stem))
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from error
    model = imported.model
    part = out.with_name(f"{out.stem}.part.keras")
    try:
        model.save(part)
        part.rename(out)
    except OSError as error:
        raise OutputError(
            f"{out}: cannot be written ({error.strerror}); choose another place with --out"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    record = {
        "source": source.name,
        "sha256": digest(source),
        "layout": imported.layout,
        "expects": "scale: imagenet",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    write_whole(out.with_name(f"{out.name}.provenance.json"), json.dumps(record, indent=2) + "\n")
    sites = find_sites(model, np.zeros((1, image_size, image_size, 3), np.float32))
    return ImportedFile(
        out, imported.layout, len(sites), model.count_params(), model.output_shape[-1], image_size
    )
