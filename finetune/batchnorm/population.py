"""Population moments of all sites of a model in one pass over a calibration set.

- `one_pass`: every site normalises with the batch's own moments, which are pooled over the batches
  (precise BN: Wu & Johnson 2021, arXiv:2105.07576; here by the law of total variance, not by averaging
  variances). From the second site on the result depends on how the images are batched.
- `input_moments`: the moments of every site's input under the model as it is, running statistics
  included. Changes nothing; how the images are batched does not matter.

Both run the model in inference mode: dropout, stochastic depth and augmentation layers stay off. A site whose mean is
far from zero is measured again in float64 in a second pass, so `batches` must be open to be iterated again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras

from finetune.batchnorm.live_model import LiveModel
from finetune.batchnorm.matching import Affine
from finetune.batchnorm.passes import Batches, Measured
from finetune.batchnorm.sites import BNSite


def one_pass(
    model: keras.Model,
    sites: Sequence[BNSite],
    batches: Batches,
    affine: Mapping[str, Affine] | None = None,
) -> Measured:
    """Population moments of every called site, each normalising with the batch's own, and the number of images.

    affine: by site path, what is done to the normalised values before gamma and beta
    (finetune.batchnorm.matching.matched_affine); nothing where a path is missing.
    Raises ValueError where there is no image, and where batches that are needed twice can be read only once.
    """
    return _called(model, sites).one_pass(batches, affine or {})


def input_moments(model: keras.Model, sites: Sequence[BNSite], batches: Batches) -> Measured:
    """Population moments of every called site's input under the model as it is, and the number of images.

    Raises ValueError as `one_pass`.
    """
    return _called(model, sites).input_moments(batches)


def _called(model: keras.Model, sites: Sequence[BNSite]) -> LiveModel:
    return LiveModel(model, [site for site in sites if site.calls])
