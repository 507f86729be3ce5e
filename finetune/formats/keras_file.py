"""Whole Keras models in a file: `.keras`, and HDF5 as Keras 3 and Keras 2 write it. Loaded by Keras, in safe mode.

A copy differs in the bytes of the statistics alone (and, in a zip, in their checksums): Keras saves nothing anew.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from finetune.batchnorm.layerwise import Network
from finetune.batchnorm.live_model import LiveModel
from finetune.batchnorm.matching import Affine
from finetune.batchnorm.moments import RunningStatistics
from finetune.batchnorm.naming import some
from finetune.batchnorm.passes import Measured
from finetune.batchnorm.sites import find_sites
from finetune.errors import ModelError
from finetune.formats.deployed import Batch, DeployedModel, InputSpec
from finetune.formats.hdf5_reading import refuse_endless
from finetune.formats.keras_archive import rewritten, weights_of
from finetune.formats.keras_datasets import arrived, marked, patched, vectors
from finetune.formats.keras_loading import example_of, image_input, in_words, load, made_by


def open_keras_file(path: Path, trust: bool = False) -> DeployedModel:
    """A whole model in a `.keras` or `.h5` file. trust: run the code of Lambda layers that it carries.

    Raises ModelError, in words, where it is damaged, holds weights alone, needs code that is not here, or its
    statistics cannot be measured anew.
    """
    if not path.is_file():
        raise ModelError(f"{path}: expected a file, found {'a folder' if path.exists() else 'nothing'}")
    with in_words(path):
        return KerasFile(path, trust)


class KerasFile:
    """An opened file; see finetune.formats.deployed."""

    path: Path
    format: str
    sites: Sequence[Any]
    unused: Sequence[str]
    inputs: Sequence[InputSpec]
    batch_size: int | None

    def __init__(self, path: Path, trust: bool) -> None:
        self.path, self._trust = path, trust
        self._weights = weights_of(path)
        refuse_endless(self._weights, path)
        self._vectors = vectors(self._weights, path)
        self.format = made_by(path)
        self._model = load(path, trust=trust)
        spec = image_input(self._model, path)
        self.inputs, self.batch_size = (spec,), spec.shape[0] if spec.shape else None
        found = find_sites(self._model, example_of(spec))
        self.sites = self._sites = [site for site in found if site.calls]
        self.unused = [site.path for site in found if site.built and not site.calls]
        self._refuse_unmeasurable()
        self._datasets = self._probed()
        self._measured = LiveModel(self._model, self._sites)

    @property
    def live(self) -> keras.Model:
        """The model that was loaded; what is changed in it is not in the file."""
        return self._model

    def _refuse_unmeasurable(self) -> None:
        if not self._sites:
            raise ModelError(
                f"{self.path}: no BN site: the network has none, or they were folded into its weights"
            )
        renorm = [site.path for site in self._sites if getattr(site.layer, "renorm", False)]
        if renorm:
            raise ModelError(
                f"{self.path}: renorm sites keep statistics of another kind and cannot be measured: {some(renorm)}"
            )

    def _probed(self) -> list[tuple[str, str]]:
        """Per site the datasets that its mean and its variance are loaded from."""
        markers = marked(self._vectors)
        with tempfile.TemporaryDirectory(prefix="finetune-keras-") as folder:
            probe = Path(folder, self.path.name)
            probe.write_bytes(rewritten(self.path, patched(self._weights, self._vectors, markers)))
            loaded = self._statistics_of(probe)
        found = [tuple(arrived(values, markers) for values in (s.mean, s.variance)) for s in loaded]
        unknown = [site.path for site, names in zip(self._sites, found, strict=True) if None in names]
        if unknown:
            raise ModelError(
                f"{self.path}: the statistics of {some(unknown)} are stored in a form that cannot be replaced in place "
                "(compressed, in pieces, or in bfloat16); load the model with Keras, save it again and recalibrate that"
            )
        return [(str(mean), str(variance)) for mean, variance in found]

    def _statistics_of(self, path: Path) -> list[RunningStatistics]:
        """Those of the same sites, as a fresh model has them that is loaded from another file."""
        found = find_sites(load(path, trust=self._trust), example_of(self.inputs[0]))
        return [site.statistics for site in found if site.calls]

    def network(self) -> Network:
        """To be cut at the sites; its input is that of the model. Raises ModelError where it cannot be cut."""
        if keras.backend.backend() != "tensorflow":
            raise ModelError(f"{self.path}: layerwise needs KERAS_BACKEND=tensorflow; use one_pass")
        spec = self.inputs[0]
        with in_words(self.path):
            traced = self._measured.graph(keras.KerasTensor(spec.shape, spec.dtype))
        if traced is None:
            raise ModelError(
                f"{self.path}: a site is called inside a function or a loop of its own, so that it cannot be cut "
                "there; use one_pass"
            )
        return traced.network

    def one_pass(self, batches: Iterable[Batch], affine: Mapping[str, Affine] | None = None) -> Measured:
        """Per site the moments under precise BN, and the number of images.

        Raises ValueError where there is none, and where batches that are needed twice can be read only once.
        """
        again = iter(batches) is not batches
        images = _Images(batches, self._fed) if again else map(self._fed, batches)
        return self._measured.one_pass(images, affine or {})

    def predict(self, batch: Batch) -> dict[str, NDArray]:
        """The outputs, by name, under the statistics in force."""
        with in_words(self.path):
            outputs = keras.tree.flatten(self._model.predict_on_batch(self._fed(batch)))
        names = getattr(self._model, "output_names", None) or []
        if len(names) != len(outputs):
            names = [f"output_{number}" for number in range(len(outputs))]
        return dict(zip(names, outputs, strict=True))

    def _fed(self, batch: Batch) -> NDArray:
        spec = self.inputs[0]
        return np.asarray(batch[spec.name], spec.dtype)

    def write(self, destination: Path) -> int:
        """A copy with the statistics in force; how many bytes differ. Raises ModelError, with nothing left behind."""
        values = {
            name: each
            for site, names in zip(self._sites, self._datasets, strict=True)
            for name, each in zip(names, (site.statistics.mean, site.statistics.variance), strict=True)
        }
        with in_words(self.path):
            content = rewritten(self.path, patched(self._weights, self._vectors, values))
            write_whole(content, destination, self._check)
            return differing(self.path.read_bytes(), content)

    def _check(self, copy: Path) -> None:
        """Raise ModelError where a fresh model loaded from a copy has other statistics than are in force."""
        for site, found in zip(self._sites, self._statistics_of(copy), strict=True):
            if not site.statistics.identical(found):
                raise ModelError(
                    f"{self.path}: Keras loads other statistics at {site.path} of the copy than were written; the file "
                    "is of a make that is not known"
                )


class _Images:
    """Batches that can be iterated again, as the model takes them."""

    def __init__(self, batches: Iterable[Batch], fed: Callable[[Batch], NDArray]) -> None:
        self.batches, self.fed = batches, fed

    def __iter__(self) -> Iterator[NDArray]:
        return map(self.fed, self.batches)


def differing(before: bytes, after: bytes) -> int:
    """How many bytes."""
    return sum(a != b for a, b in zip_longest(before, after))


def write_whole(content: bytes, destination: Path, check: Callable[[Path], None]) -> None:
    """A file that appears whole, once `check`, called with it under another name beside it, raised nothing."""
    destination = destination.absolute()
    if destination.exists():
        raise ModelError(f"{destination}: exists; give a place that does not")
    made = next((p for p in reversed(destination.parents) if not p.exists()), None)
    # the ending is what Keras goes by
    unfinished = destination.with_name(f".{uuid.uuid4().hex[:8]}.{destination.name}")
    try:
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(content)
        check(unfinished)
        unfinished.rename(destination)
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if made:
            shutil.rmtree(made, ignore_errors=True)
        if isinstance(error, OSError):
            raise ModelError(f"{destination}: cannot be written ({error})") from error
        raise
