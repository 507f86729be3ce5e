"""The deployed model that is worked on: opened, with what is known of how it wants its images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from finetune.errors import InputError, ModelError
from finetune.formats.deployed import DeployedModel
from finetune.formats.opening import open_model
from finetune.recalibration.lineage import read_provenance
from finetune.recalibration.preprocessing import Preprocessing
from finetune.recalibration.reading_inputs import Wanted, wanted_preprocessing
from finetune.recalibration.settings import ImageSource, Settings
from finetune.recalibration.versions import MODEL_FILES, model_in, newest

KERAS_FILES = (".keras", ".h5")


class ImageSet(Protocol):
    """A calibration set: a folder's, or a split's. labels: (count,), where it has some."""

    source: str
    digest: str
    class_names: tuple[str, ...] | None
    notes: tuple[str, ...]

    @property
    def count(self) -> int: ...

    @property
    def labels(self) -> NDArray[np.int64] | None: ...

    def batches(self, image_size: int, batch_size: int) -> Iterator[NDArray[np.uint8]]: ...


@dataclass(frozen=True, eq=False)
class Subject:
    """address: what the person wrote. path: the SavedModel folder or the file behind it. provenance: of its making."""

    address: str
    path: Path
    model: DeployedModel
    wanted: Wanted
    provenance: Mapping[str, Any]

    @property
    def version(self) -> Path:
        """The folder that is a version: a SavedModel itself, that of a file otherwise."""
        return self.path if self.path.is_dir() else self.path.parent

    def open_images(self, source: ImageSource, settings: Settings) -> ImageSet:
        """The images that the settings ask for. Raises DataError with every problem found."""
        size, labelled = self.wanted.preprocessing.image_size, settings.labelled
        keep = self._share(settings)
        if source.folder is not None:
            from finetune.recalibration.images import open_folder

            names = self.class_names if labelled else None
            return open_folder(
                source.folder,
                settings.samples,
                settings.seed,
                labelled=labelled,
                class_names=names,
                keep=keep,
            )
        from finetune.recalibration.split_images import from_recipe, from_tfds

        if source.recipe is not None:
            return from_recipe(source.recipe, size, settings.samples, labelled=labelled, keep=keep)
        return from_tfds(source.tfds or "", size, settings.samples, labelled=labelled, keep=keep)

    def _share(self, settings: Settings) -> Callable[[int], bool] | None:
        """Whether this process measures the image at a place of the whole set; None where it measures all."""
        shard, batch_size = settings.shard, self.model.batch_size or settings.batch_size
        return None if shard is None else lambda place: shard.holds(place, batch_size)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        names = self.provenance.get("data", {}).get("class_names")
        return tuple(names) if names else None

    def batches(self, images: ImageSet, batch_size: int) -> Prepared:
        """As the model reads them, as often as wanted; batches of the model's own size where it has one."""
        fixed = self.model.batch_size
        return Prepared(images, self.wanted.preprocessing, fixed or batch_size, whole_only=fixed is not None)

    def predict(self, batches: Iterable[NDArray]) -> NDArray | None:
        """Scores, (images, classes); None where the model has no output of that shape, or several."""
        name = self.model.inputs[0].name
        parts = [self.model.predict({name: batch}) for batch in batches]
        scores = [key for key, value in parts[0].items() if value.ndim in (1, 2)]
        return np.concatenate([part[scores[0]] for part in parts]) if len(scores) == 1 else None


@dataclass(frozen=True, eq=False)
class Prepared:
    """Batches as a model reads them. whole_only: what is left of the last one cannot be fed."""

    images: ImageSet
    preprocessing: Preprocessing
    batch_size: int
    whole_only: bool

    def __iter__(self) -> Iterator[NDArray]:
        for batch in self.images.batches(self.preprocessing.image_size, self.batch_size):
            if len(batch) == self.batch_size or not self.whole_only:
                yield self.preprocessing.apply(batch)

    @property
    def count(self) -> int:
        """How many images that are."""
        left_out = self.images.count % self.batch_size if self.whole_only else 0
        return self.images.count - left_out


def open_subject(address: str, settings: Settings) -> Subject:
    """What a person names: a SavedModel, a model file, or the folder of their versions, of which the newest is taken.

    Raises ModelError, and InputError where its preprocessing has to be told.
    """
    path = model_at(Path(address))
    model = open_model(path, signature=settings.signature, trust=settings.trust, twin=twin_of(path, settings))
    return subject_of(address, path, model, settings)


def subject_of(address: str, path: Path, model: DeployedModel, settings: Settings) -> Subject:
    """Of a model that is open already. Raises as `open_subject` does."""
    if len(model.inputs) != 1:
        names = ", ".join(spec.name for spec in model.inputs)
        raise ModelError(f"{path}: expected one input, of images; found {len(model.inputs)}: {names}")
    provenance = read_provenance(path if path.is_dir() else path.parent)
    wanted = wanted_preprocessing(model.inputs[0], provenance, settings.told)
    return Subject(address, path, model, wanted, provenance)


def twin_of(path: Path, settings: Settings) -> Path | None:
    """The export of a Keras file: the one that was named, else the newest beside it.

    Raises InputError where one was named for a model that has no use for it.
    """
    if path.suffix not in KERAS_FILES:
        if settings.twin is not None:
            raise InputError(
                f"{path}: a twin was given, but only a .keras or .h5 file is measured through one"
            )
        return None
    return model_at(settings.twin) if settings.twin else newest(path.parent / "saved_model")


def model_at(path: Path) -> Path:
    """The model behind a path: of a folder of versions the newest, of a version or a run folder what it holds."""
    version = newest(path)
    if version is not None:
        return model_in(version)
    if path.is_dir() and newest(path / "saved_model"):
        return model_at(path / "saved_model")
    if path.is_dir() and any(file.suffix in MODEL_FILES for file in path.iterdir()):
        return model_in(path)
    return path
