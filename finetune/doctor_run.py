"""The story of `finetune doctor`: open a model, a run or a recipe (doctor_recipe.py), look at it, change nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from finetune.batchnorm.sites import find_sites
from finetune.doctor.calling import given_back
from finetune.doctor.diagnosis import Diagnosis, Plan, diagnose
from finetune.doctor.facts import of_file
from finetune.doctor.histograms import write_histograms
from finetune.doctor.patient import Patient, Seen, live_patient
from finetune.doctor_recipe import of_recipe
from finetune.errors import InputError
from finetune.formats.deployed import DeployedModel
from finetune.formats.keras_file import KerasFile
from finetune.formats.keras_loading import example_of, image_input
from finetune.formats.opening import open_model
from finetune.masking import masked
from finetune.progress import Progress
from finetune.recalibration.carried_reference import carried
from finetune.recalibration.deployed_network import DeployedNetwork
from finetune.recalibration.settings import ImageSource, Settings
from finetune.recalibration.subject import Subject, model_at, subject_of, twin_of
from finetune.registered_run import downloaded
from finetune.tracking import store_uri
from finetune.tracking.address import is_address
from finetune.tracking.registry import open_registry
from finetune.training import EVALUATION_BATCH

REFERENCE_SAMPLES = 2048
RUN_MODEL = "model.keras"


def examine(
    model: keras.Model,
    images: NDArray | None = None,
    labels: Sequence[int] | None = None,
    *,
    reference_images: NDArray | None = None,
    plan: Plan | None = None,
) -> Diagnosis:
    """A live Keras model with one image input. images: as the model reads them, (n, height, width, channels).

    labels: (n,), class numbers. reference_images: some that it was trained on. The model is afterwards as it was.
    """
    with given_back(model):
        example = images[:1] if images is not None else example_of(image_input(model, Path("MODEL")))
        patient = live_patient(model, find_sites(model, example))
        if reference_images is not None:
            patient = dataclasses.replace(patient, reference=_moments(patient, [reference_images]))
        answers = None if labels is None else np.asarray(labels)
        return diagnose(patient, None if images is None else Seen(_cut(images), answers), plan)


def doctor(
    address: str,
    images: ImageSource | None = None,
    settings: Settings | None = None,
    plan: Plan | None = None,
    progress: Progress | None = None,
    tensorboard: Path | None = None,
    store: str | None = None,
) -> Diagnosis:
    """A model file, a run folder, a model of MLflow or a recipe. Raises InputError and ModelError as
    `finetune.recalibrate` does.

    address: a path, or as `finetune.registered_run.recalibrate` takes it. tensorboard: gets a histogram of what every
    site of a Keras model gets and hands on, of the first batch of images. store: the tracking URI.
    """
    settings, progress = settings or Settings(), progress or Progress()
    if address.endswith((".yaml", ".yml")):
        return of_recipe(Path(address), progress)
    if not is_address(address):
        path = _model_of(Path(address))
        progress.phase(f"opening {path}")
        return _look(address, path, images, settings, plan, progress, tensorboard)
    with TemporaryDirectory() as temporary, open_registry(store_uri(store)) as registry:
        progress.phase(f"fetching {address} from MLflow at {masked(registry.store)}")
        with downloaded(registry, registry.find(address), Path(temporary)) as (_, path):
            return _look(address, path, images, settings, plan, progress, tensorboard)


def _look(
    address: str,
    path: Path,
    images: ImageSource | None,
    settings: Settings,
    plan: Plan | None,
    progress: Progress,
    tensorboard: Path | None,
) -> Diagnosis:
    """At the model that lies at `path`."""
    model = open_model(path, signature=settings.signature, trust=settings.trust, twin=twin_of(path, settings))
    subject = subject_of(address, path, model, settings) if images or settings.reference_images else None
    patient = _with_reference(_patient_of(address, path, model), path, subject, settings)
    seen = None
    if images and subject:
        progress.phase(str(subject.wanted))
        seen = _seen(subject, images, settings)
        progress.phase(f"looking at {seen.count} images")
    if tensorboard:
        _write_histograms(patient, seen, tensorboard)
    return diagnose(patient, seen, plan)


def _write_histograms(patient: Patient, seen: Seen | None, folder: Path) -> None:
    if patient.model is None or seen is None:
        raise InputError(
            f"--tensorboard {folder}: expected a Keras model and images, found {patient.format}"
            f"{'' if seen else ' and no --images'}"
        )
    with given_back(patient.model):
        write_histograms(patient.model, patient.sites, seen.batches[0], folder)


def _model_of(path: Path) -> Path:
    """Of a run folder its Keras model, which tells more than what was exported from it."""
    return path / RUN_MODEL if (path / RUN_MODEL).is_file() else model_at(path)


def _patient_of(address: str, path: Path, model: DeployedModel) -> Patient:
    if isinstance(model, KerasFile):
        return live_patient(
            model.live, find_sites(model.live, example_of(model.inputs[0])), address, model.format
        )

    def predict(images: NDArray) -> NDArray:
        (name,) = (spec.name for spec in model.inputs)
        outputs = model.predict({name: images})
        return np.asarray(next(iter(outputs.values())), np.float64)

    return Patient(
        address=address,
        format=model.format,
        network=DeployedNetwork(model),
        facts=tuple(of_file(site) for site in model.sites),
        predict=predict if len(model.inputs) == 1 else None,
    )


def _with_reference(patient: Patient, path: Path, subject: Subject | None, settings: Settings) -> Patient:
    if settings.reference_images and subject:
        wanted = dataclasses.replace(settings, samples=REFERENCE_SAMPLES, labelled=False)
        shown = _seen(subject, ImageSource(folder=settings.reference_images), wanted)
        return dataclasses.replace(patient, reference=_moments(patient, shown.batches))
    found = carried(path, patient.network.sites)  # type: ignore[arg-type]
    return dataclasses.replace(patient, reference=found.moments, carried=True) if found else patient


def _moments(patient: Patient, batches: Sequence[NDArray]) -> dict[str, Any]:
    measured, _ = patient.network.input_moments(batches)
    return {site.path: each for site, each in zip(patient.network.sites, measured, strict=True)}


def _seen(subject: Subject, source: ImageSource, settings: Settings) -> Seen:
    images = subject.open_images(source, settings)
    prepared = subject.batches(images, settings.batch_size)
    labels = images.labels
    return Seen(list(prepared), None if labels is None else labels[: prepared.count])


def _cut(images: NDArray) -> list[NDArray]:
    return [images[start : start + EVALUATION_BATCH] for start in range(0, len(images), EVALUATION_BATCH)]
