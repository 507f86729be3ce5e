"""`finetune data`: a look at what a recipe would be trained on, before it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from finetune.backbones.base import BuiltBackbone
from finetune.batchnorm.population import input_moments
from finetune.batchnorm.shift import shift
from finetune.datasets.base import Splits
from finetune.datasets.batches import images_only
from finetune.datasheet.look import BackboneInput, DataLook
from finetune.datasheet.page import render
from finetune.datasheet.pictures import pairs
from finetune.datasheet.reading import read_split
from finetune.datasheet.repeats import repeats
from finetune.errors import OutputError
from finetune.feature_cache import ImageSource
from finetune.prepared import computing_in, prepare
from finetune.progress import Progress
from finetune.recalibration.scale_check import IMPLAUSIBLE
from finetune.recalibration.scale_check import distance as divergence
from finetune.recipe import Recipe
from finetune.stopwatch import Stopwatch
from finetune.trained_part import Trainee
from finetune.training import EVALUATION_BATCH
from finetune.whole_file import write_whole

SAMPLES = 512
"""Training images that are sent through the preprocessing and to the first site, at most."""

SHOWN = 24


def look_at_data(recipe: Recipe, html: Path | None = None, progress: Progress | None = None) -> DataLook:
    """Read every split once; trains nothing. html: where to write the page with pictures.

    Raises InputError where the recipe cannot be carried out, OutputError for the page.
    """
    progress = progress or Progress()
    with computing_in(recipe.precision):
        prepared = prepare(recipe, progress, Stopwatch())
        splits = prepared.splits
        progress.phase("reading every image once")
        four = (splits.train, splits.validation, splits.test, splits.calibration)
        readings = []
        for done, split in enumerate(four, 1):
            readings.append(read_split(split, len(splits.class_names)))
            progress.share(done / len(four))
        progress.close()
        look = DataLook(
            recipe.name,
            splits.class_names,
            splits.image_size,
            tuple(readings),
            repeats(readings),
            what_reaches(prepared.built, prepared.trainee, splits),
            recipe.data.class_weights != "none",
            splits.licence,
            (*splits.notes, *prepared.warnings),
            splits.multi_label,
            recipe.data.originals(),
        )
        if html is not None:
            source = ImageSource(splits, recipe.data, recipe.seed, EVALUATION_BATCH)
            write_page(look, source, html)
    return look


def what_reaches(built: BuiltBackbone, trainee: Trainee, splits: Splits) -> BackboneInput:
    """Of the training images as they are, without augmentation."""
    batches = images_only(splits.train, EVALUATION_BATCH, limit=SAMPLES)
    prepared = [
        np.asarray(built.preprocess(np.asarray(batch, np.float32)), np.float64).reshape(-1, 3)
        for batch in batches
    ]
    values = np.concatenate(prepared)
    found = BackboneInput(
        tuple(values.mean(0).tolist()),
        tuple(values.std(0).tolist()),
        float(values.min()),
        float(values.max()),
    )
    called = [site for site in trainee.sites if site.calls]
    if not called:
        return found
    first = called[0]
    [moments], _ = input_moments(trainee.model, [first], batches)
    seen = moments.statistics()
    nats = divergence(first.statistics, seen, first.epsilon)
    return dataclasses.replace(
        found,
        first_site=first.path,
        apart=shift(first.statistics, seen, first.epsilon).mean,
        divergence=nats,
        # a network of random weights expects nothing
        implausible=nats > IMPLAUSIBLE and not untouched(first.statistics.mean, first.statistics.variance),
    )


def untouched(mean: Sequence[float] | np.ndarray, variance: Sequence[float] | np.ndarray) -> bool:
    """Whether running statistics are those of a new layer."""
    return bool(np.all(np.asarray(mean) == 0) and np.all(np.asarray(variance) == 1))


def write_page(look: DataLook, source: ImageSource, path: Path) -> None:
    page = render(look, pairs(source, look.class_names, SHOWN))
    try:
        write_whole(path, page)
    except OSError as error:
        raise OutputError(
            f"{path}: the page cannot be written ({error.strerror}); choose another place with --html"
        ) from error
