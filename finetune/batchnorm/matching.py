"""What to store once a site's input has been measured: as it is, with a prior, or matched to a reference.

A network that was trained with fixed running statistics does not store the population statistics of its own
training data: its weights moved under them. Storing measured ones would break it, even on that very data. What
must stay is what each site hands on, so *matched* statistics give the normalised values on the new images the
mean and spread that they had on the reference images.

This generalises the moment alignment of AdaBN (Li et al. 2016, arXiv:1603.04779), which assumes that what a site
stores is what its source data have; where that holds the two agree. The prior is that of Schneider et al. 2020
(arXiv:2006.16971). Per channel, arrays (channels,), variances biased, epsilon inside every variance.
"""

from __future__ import annotations

import numpy as np

from finetune.batchnorm.moments import Float64, RunningStatistics

Affine = tuple[Float64, Float64]
"""Scale and offset of normalised values, (channels,) each, before gamma and beta."""


def matched(
    stored: RunningStatistics, reference: RunningStatistics, measured: RunningStatistics, epsilon: float
) -> RunningStatistics:
    """The statistics to store instead of `stored`, so that the site hands on what it did on the reference images.

    With (m, s) stored, (mu_ref, sd_ref) the moments of the input on the reference images and (mu, sd) those
    measured: s' = s sd / sd_ref and m' = mu - s' (mu_ref - m) / s. A variance that epsilon alone already
    exceeds, as a channel without spread can ask for, is 0.
    """
    m, s = _mean_and_sd(stored, epsilon)
    mu_ref, sd_ref = _mean_and_sd(reference, epsilon)
    mu, sd = _mean_and_sd(measured, epsilon)
    new_sd = s * sd / sd_ref
    return RunningStatistics(mu - new_sd * (mu_ref - m) / s, np.maximum(new_sd**2 - epsilon, 0.0))


def matched_affine(stored: RunningStatistics, reference: RunningStatistics, epsilon: float) -> Affine:
    """Scale and offset that make of values normalised with their own moments what a matched site hands on.

    (x - m') / s' = (x - mu) / sd * scale + offset, before gamma and beta.
    """
    m, s = _mean_and_sd(stored, epsilon)
    mu_ref, sd_ref = _mean_and_sd(reference, epsilon)
    return sd_ref / s, (mu_ref - m) / s


def with_affine(gamma: Float64, beta: Float64, affine: Affine | None) -> tuple[Float64, Float64]:
    """gamma and beta that do to normalised values what `affine` and then they do."""
    if affine is None:
        return gamma, beta
    scale, offset = affine
    return gamma * scale, beta + gamma * offset


def with_prior(
    before: RunningStatistics, measured: RunningStatistics, prior: float, images: int
) -> RunningStatistics:
    """The earlier statistics count as `prior` images, the measured ones as those that they were measured on."""
    if not prior:
        # earlier statistics that are no numbers would stay so, weighted by nothing
        return measured
    share = images / (prior + images)
    return RunningStatistics(
        (1.0 - share) * before.mean + share * measured.mean,
        (1.0 - share) * before.variance + share * measured.variance,
    )


def _mean_and_sd(statistics: RunningStatistics, epsilon: float) -> tuple[Float64, Float64]:
    return (
        np.asarray(statistics.mean, np.float64),
        np.sqrt(np.asarray(statistics.variance, np.float64) + epsilon),
    )
