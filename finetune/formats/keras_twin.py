"""A Keras file whose code is not here, measured through its twin: an exported SavedModel of the same weights.

The SavedModel needs no code, and the file none to have its statistics replaced: a site of the twin is found in the file
by the bytes that both store for it. The twin goes along with every copy, measured as well, so that there is one the
next time.
"""

from __future__ import annotations

import io
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from finetune.batchnorm.layerwise import Network
from finetune.batchnorm.matching import Affine
from finetune.batchnorm.moments import PopulationMoments
from finetune.batchnorm.naming import some
from finetune.errors import ModelError
from finetune.formats.deployed import Batch, DeployedModel, DeployedSite, InputSpec
from finetune.formats.hdf5_reading import refuse_endless
from finetune.formats.keras_archive import rewritten, weights_of
from finetune.formats.keras_datasets import Dataset, patched, vectors
from finetune.formats.keras_file import differing, write_whole
from finetune.formats.keras_loading import in_words, made_by
from finetune.formats.saved_model import SavedModel, open_saved_model
from finetune.formats.saved_site import SavedSite

BESIDE = Path("saved_model", "1")
"""Where the twin of a copy lies, from the copy's folder: the layout that `finetune run` leaves too."""


def open_through_twin(path: Path, twin: Path, signature: str | None = None) -> DeployedModel:
    """A `.keras` or `.h5` file and the SavedModel `model.export()` made of it; signature: of that.

    Raises ModelError where the two hold different weights, or a site's statistics are not to be told from others.
    """
    with in_words(path):
        return KerasTwin(path, open_saved_model(twin, signature))


class KerasTwin:
    """See finetune.formats.deployed: what is measured and predicted is the twin's, what is written the file."""

    path: Path
    format: str
    sites: Sequence[DeployedSite]
    unused: Sequence[str]
    inputs: Sequence[InputSpec]
    batch_size: int | None

    def __init__(self, path: Path, twin: SavedModel) -> None:
        self.path, self._twin = path, twin
        self._weights = weights_of(path)
        refuse_endless(self._weights, path)
        self._vectors = vectors(self._weights, path)
        self.format = f"{made_by(path)}, measured through its twin {twin.path}"
        self._refuse_others()
        self.sites = self._sites = twin.saved_sites
        self.unused, self.inputs, self.batch_size = twin.unused, twin.inputs, twin.batch_size
        self._datasets = matched(self._sites, self._vectors, self._weights, path)

    def _refuse_others(self) -> None:
        """Raise ModelError where the twin computes with a value that the file does not hold."""
        held = contents(self._weights)
        foreign = [name for name, value in self._twin.weights if (value.shape, value.tobytes()) not in held]
        if foreign:
            raise ModelError(
                f"{self.path}: its twin {self._twin.path} has other values in {some(foreign)}; give the export of this "
                "very file"
            )

    def network(self) -> Network:
        return self._twin.network()

    def one_pass(
        self, batches: Iterable[Batch], affine: Mapping[str, Affine] | None = None
    ) -> tuple[list[PopulationMoments], int]:
        return self._twin.one_pass(batches, affine)

    def predict(self, batch: Batch) -> dict[str, NDArray]:
        return self._twin.predict(batch)

    def write(self, destination: Path) -> int:
        """A copy with the statistics in force, and its twin beside it; how many bytes differ in both.

        Raises ModelError, with nothing left behind.
        """
        values = {
            name: np.ravel(variable.values)
            for site, names in zip(self._sites, self._datasets, strict=True)
            for name, variable in zip(names, (site.mean, site.variance), strict=True)
        }
        content = rewritten(self.path, patched(self._weights, self._vectors, values))
        beside = destination.absolute().parent / BESIDE
        changed: list[int] = []

        def check(copy: Path) -> None:
            self._check(copy, values)
            changed.append(self._twin.write(beside))

        with in_words(self.path):
            try:
                write_whole(content, destination, check)
            except BaseException:
                if changed:
                    shutil.rmtree(beside, ignore_errors=True)
                raise
            return sum(changed) + differing(self.path.read_bytes(), content)

    def _check(self, copy: Path, values: Mapping[str, NDArray]) -> None:
        """Raise ModelError where a copy, read anew, holds anything else than was written."""
        with h5py.File(io.BytesIO(weights_of(copy))) as file:
            wrong = [name for name, each in values.items() if file[name][()].tobytes() != each.tobytes()]
        if wrong:
            raise ModelError(
                f"{self.path}: the copy holds other values in {some(wrong)} than were written; the file is of a make "
                "that is not known"
            )


def contents(weights: bytes) -> set[tuple[tuple[int, ...], bytes]]:
    """Shape and bytes of every dataset of an HDF5 file."""
    found: set[tuple[tuple[int, ...], bytes]] = set()

    def note(_: str, thing: h5py.HLObject) -> None:
        if isinstance(thing, h5py.Dataset):
            found.add((thing.shape, np.asarray(thing[()]).tobytes()))

    with h5py.File(io.BytesIO(weights)) as file:
        file.visititems(note)
    return found


def matched(
    sites: Sequence[SavedSite], datasets: Mapping[str, Dataset], weights: bytes, path: Path
) -> list[tuple[str, str]]:
    """Per site the datasets of its mean and its variance. Raises ModelError where there is not exactly one pair."""
    holding: dict[bytes, list[str]] = defaultdict(list)
    for name, dataset in datasets.items():
        end = dataset.offset + dataset.length * dataset.dtype.itemsize
        holding[weights[dataset.offset : end]].append(name)
    pairs = {site.path: _pairs(site, holding) for site in sites}
    lost = [site for site, found in pairs.items() if not found]
    taken = Counter(pair for found in pairs.values() for pair in found)
    unclear = [
        site for site, found in pairs.items() if len(found) > 1 or any(taken[pair] > 1 for pair in found)
    ]
    problems = []
    if lost:
        problems.append(
            f"{path}: the statistics of {some(lost)} are stored in a form that cannot be replaced in place "
            "(compressed, in pieces, or in bfloat16); where the code is, load the model with Keras and save it again"
        )
    if unclear:
        problems.append(
            f"{path}: the statistics of {some(unclear)} are in the file more than once with the same values, so that "
            "nobody can tell which are the site's; where the code is, recalibrate there"
        )
    if problems:
        raise ModelError(problems)
    return [pair for site in sites for pair in pairs[site.path]]


def _pairs(site: SavedSite, holding: Mapping[bytes, Sequence[str]]) -> list[tuple[str, str]]:
    """Names of all datasets that hold its mean and its variance; those of one layer, where some are."""
    means, variances = (holding.get(variable.values.tobytes(), ()) for variable in (site.mean, site.variance))
    found = [(mean, variance) for mean in means for variance in variances if mean != variance]
    together = [
        (mean, variance) for mean, variance in found if mean.rpartition("/")[0] == variance.rpartition("/")[0]
    ]
    return together or found
