"""Images of two, and labels in the same shares."""

import numpy as np
import pytest
import tensorflow as tf

from finetune.datasets.mix import Mix, mixed
from finetune.errors import RecipeError
from finetune.recipe_file import load_text
from tests.recipe_file import GOOD

SIZE, CLASSES, BATCH = 8, 5, 4
IMAGES = np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 3)).astype(np.uint8)
LABELS = np.array([0, 1, 2, 3], np.int32)


def drawn(kind, alpha=1.0, count=40, seed=3, epochs=1):
    """(images, shares) of `count` batches of the same four images, epoch by epoch."""
    same = tf.data.Dataset.from_tensors((IMAGES, LABELS)).repeat(count)
    batches = mixed(same, Mix(kind=kind, alpha=alpha), CLASSES, seed)
    return [list(batches.as_numpy_iterator()) for _ in range(epochs)]


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_labels_have_the_shares_that_the_pixels_have(kind):
    whole = np.eye(CLASSES)[LABELS]
    for images, shares in drawn(kind)[0]:
        share = float(shares[0, 0])
        np.testing.assert_allclose(shares, share * whole + (1 - share) * whole[::-1], atol=1e-6)
        np.testing.assert_allclose(shares.sum(1), 1.0, atol=1e-6)
        if kind == "mixup":
            blended = share * IMAGES + (1 - share) * IMAGES[::-1]
            np.testing.assert_allclose(images, blended, atol=1e-3)
        else:
            own = (images == IMAGES).all((0, -1))
            assert ((images == IMAGES[::-1]).all((0, -1)) | own).all()
            assert own.mean() == pytest.approx(share, abs=1e-6)
            rows, columns = np.nonzero(~own)
            # a rectangle without holes
            assert not rows.size or rows.size == np.unique(rows).size * np.unique(columns).size


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_the_shares_are_of_the_beta_distribution(alpha):
    """Mean 1/2 and variance 1 / (4 (2 alpha + 1)), within four standard errors of 2,000 draws."""
    shares = np.array([float(labels[0, 0]) for _, labels in drawn("mixup", alpha, count=2000)[0]])
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(shares.mean() - 0.5) < 4 * np.sqrt(variance / 2000)
    fourth = np.mean((shares - shares.mean()) ** 4)
    assert abs(shares.var() - variance) < 4 * np.sqrt((fourth - variance**2) / 2000)


def test_every_epoch_is_another_draw_and_a_seed_repeats_them():
    one, again, other = (drawn("mixup", epochs=2, seed=seed) for seed in (3, 3, 4))
    values = [[[float(shares[0, 0]) for _, shares in epoch] for epoch in run] for run in (one, again, other)]
    assert values[0] == values[1]
    assert values[0][0] != values[0][1]
    assert values[0] != values[2]


def test_weights_of_classes_are_refused_where_an_image_has_two():
    text = GOOD.replace(
        "  name: fashion_shift", "  name: fashion_shift\n  class_weights: balanced\n  mix: {kind: mixup}"
    )
    with pytest.raises(
        RecipeError, match="class_weights weigh images by their one class, and mixed images have two"
    ):
        load_text(text)
