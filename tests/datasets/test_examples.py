"""From raw images to examples: what is traced for it."""

import numpy as np
import tensorflow as tf

from finetune.datasets import examples
from finetune.datasets.camera import Shift

SIZE = 13
"""No other test has it, so that nothing is traced before."""


def test_images_of_one_kind_are_traced_once(monkeypatch):
    traced, original = [], examples.to_square_uint8
    monkeypatch.setattr(examples, "to_square_uint8", lambda *each: traced.append(each) or original(*each))
    pixels = np.arange(4 * 8 * 8, dtype=np.uint8).reshape(4, 8, 8, 1)
    raw = tf.data.Dataset.from_tensor_slices((pixels, [str(n) for n in range(4)], np.arange(4)))

    def read(shift):
        return [image for image, _ in examples.make_examples(raw, shift, SIZE, 4).as_numpy_iterator()]

    once, again = read(None), read(None)
    assert len(traced) == 1
    np.testing.assert_array_equal(once, again)
    inverted = read(Shift(kind="invert", severity=3))
    assert len(traced) == 2
    assert not np.array_equal(once, inverted)
