"""Splits dealt anew: folds of what is trained and validated on, and few training images of each class."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from finetune.datasets.base import Split, Splits
from finetune.datasets.batches import class_counts, labels_of
from finetune.datasets.examples import digest_of, fits_in_memory
from finetune.datasets.flag_split import deal_flags
from finetune.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def in_folds(splits: Splits, folds: int, seed: int) -> Splits:
    """Training and validation images pooled and dealt into so many folds, each class alike; fold `seed` mod `folds` is
    for validation. The deal is the same under every seed, so that seeds 0, 1, ... validate on each image once.

    Where the calibration set was the training images, it is those of the folds. Raises DataError where a class has
    fewer images than there are folds.
    """
    pooled = splits.train.examples.concatenate(splits.validation.examples)
    labels = np.concatenate([labels_of(splits.train), labels_of(splits.validation)])
    _refuse_small_classes(labels, splits.class_names, folds, "data.folds", "training and validation images")
    held = seed % folds
    dealt = deal_flags(labels, (1 / folds,) * folds, seed=0) if splits.multi_label else _dealt(labels, folds)
    validated = dealt == held
    words = f"fold {held + 1} of {folds}"
    train = _kept(replace(splits.train, examples=pooled), ~validated, f"all but {words}")
    validation = _kept(replace(splits.validation, examples=pooled), validated, words)
    return replace(
        splits,
        train=train,
        validation=validation,
        calibration=replace(train, name="calibration") if splits.shares_training else splits.calibration,
        digest=digest_of(of=splits.digest, folds=folds, held=held),
    )


def few(splits: Splits, count: int, seed: int) -> Splits:
    """`count` training images of each class, other ones under another seed. The calibration set stays whole: what is
    scarce are labels, and it has none.

    Raises DataError where a class has fewer, and where images show several classes.
    """
    if splits.multi_label:
        raise DataError(
            "data.examples_per_class: the data are multi-label, and an image of several classes counts for each; "
            "leave it out, and make the splits smaller"
        )
    labels = labels_of(splits.train)
    _refuse_small_classes(labels, splits.class_names, count, "data.examples_per_class", "training images")
    chosen = np.zeros(len(labels), bool)
    random = np.random.default_rng([seed, count])
    for label in np.unique(labels):
        chosen[random.choice(np.flatnonzero(labels == label), count, replace=False)] = True
    return replace(
        splits,
        train=_kept(splits.train, chosen, f"{count} of each class"),
        digest=digest_of(of=splits.digest, few=count, seed=seed),
    )


def _dealt(labels: NDArray[np.integer], folds: int) -> NDArray[np.integer]:
    """The fold of each image: each class is shuffled, and dealt like cards, where the class before it ended."""
    random, fold, dealt = np.random.default_rng(0), np.empty(len(labels), np.int64), 0
    for label in np.unique(labels):
        places = random.permutation(np.flatnonzero(labels == label))
        fold[places] = (dealt + np.arange(len(places))) % folds
        dealt += len(places)
    return fold


def _kept(split: Split, chosen: NDArray[np.bool_], words: str) -> Split:
    mask, count = tf.constant(chosen), int(chosen.sum())
    image_size = split.examples.element_spec[0].shape[0]
    examples = split.examples.enumerate().filter(lambda place, _: mask[place]).map(lambda _, example: example)
    examples = examples.apply(tf.data.experimental.assert_cardinality(count))
    if fits_in_memory(count, image_size):
        examples = examples.cache()
    return Split(split.name, examples, count, f"{split.description}, {words}")


def _refuse_small_classes(
    labels: NDArray[np.integer], class_names: tuple[str, ...], wanted: int, key: str, of_what: str
) -> None:
    counts = class_counts(labels, len(class_names))
    small = [f"{name} {count}" for name, count in zip(class_names, counts, strict=True) if count < wanted]
    if small:
        more = f" and {len(small) - 5} more" if len(small) > 5 else ""
        raise DataError(
            f"{key}: expected at least {wanted} {of_what} of every class, got {', '.join(small[:5])}{more}; lower it"
        )
