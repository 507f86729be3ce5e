"""`finetune probe`: what the backbone's features are worth, under the statistics it brings and under measured ones."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from finetune.baselines import Labelled, Probed, probe
from finetune.batchnorm.sites import find_sites
from finetune.datasets.base import Split, Splits
from finetune.datasets.batches import images_only, labels_of
from finetune.errors import InputError
from finetune.policies import Recalibrate
from finetune.prepared import computing_in
from finetune.progress import Progress
from finetune.recipe import Recipe
from finetune.training import EVALUATION_BATCH

if TYPE_CHECKING:
    import keras

    from finetune.backbones.base import BuiltBackbone

STORED, MEASURED = "stored", "measured anew"


def probe_features(recipe: Recipe, *, progress: Progress | None = None) -> dict[str, Probed]:
    """By the statistics that the backbone normalises with: "stored" ones and, where it has BN sites, those "measured
    anew" on the calibration images. Nothing is trained and nothing is written. Raises InputError where the data or the
    backbone cannot be had.
    """
    progress = progress or Progress()
    with computing_in(recipe.precision):
        progress.phase("opening the data")
        splits = recipe.data.load(recipe.data.image_size or recipe.backbone.default_image_size, recipe.seed)
        progress.phase("building the backbone")
        model = pooled_features(recipe.backbone.build(splits.image_size), splits.image_size)
        found = {STORED: _probed(model, splits, STORED, progress)}
        sites = find_sites(model, np.zeros((1, splits.image_size, splits.image_size, 3), np.float32))
        if any(site.calls for site in sites):
            progress.phase("measuring the statistics anew on the calibration images")
            policy = recipe.policy if isinstance(recipe.policy, Recalibrate) else Recalibrate()
            calibration = partial(images_only, splits.calibration, EVALUATION_BATCH)
            policy.start(model, sites, calibration, progress.note)
            found[MEASURED] = _probed(model, splits, MEASURED, progress)
    return found


def pooled_features(built: BuiltBackbone, image_size: int) -> keras.Model:
    """RGB values 0..255 -> features (batch, channels), averaged over positions."""
    import keras

    images = keras.Input((image_size, image_size, 3), dtype="float32")
    features = built.model(built.preprocess(images))
    if len(features.shape) == 4:
        features = keras.layers.GlobalAveragePooling2D(dtype="float32")(features)
    return keras.Model(images, features)


def _probed(model: keras.Model, splits: Splits, statistics: str, progress: Progress) -> Probed:
    if splits.multi_label:
        raise InputError(
            "the data are multi-label, and the probes tell one class an image; `finetune run` takes them"
        )
    progress.phase(f"features under {statistics} statistics")
    train, validation, test = (
        _labelled(model, each) for each in (splits.train, splits.validation, splits.test)
    )
    progress.phase("fitting the probes")
    return probe(train, validation, test, len(splits.class_names))


def _labelled(model: keras.Model, split: Split) -> Labelled:
    features = model.predict(images_only(split, EVALUATION_BATCH), verbose=0)
    return Labelled(np.asarray(features, np.float64), labels_of(split))
