"""What goes wrong in the middle of a training through no fault of the network, in words that say what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from finetune.errors import DataError, InputError

UNREADABLE = re.compile(r"\b(\w*(?:Error|Exception)): (.*)")
FRAMES = "Traceback (most recent call last)"
"""How TensorFlow quotes what a Python function in the input raised."""


@contextmanager
def faults_in_words(batch_size: int) -> Iterator[None]:
    """Memory that ran out at so many images a batch is an InputError, images that can no longer be read a DataError."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise InputError(_too_large(batch_size)) from error
    except RuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        # as JAX says it
        raise InputError(_too_large(batch_size)) from error
    except tf.errors.OpError as error:
        # other errors of TensorFlow quote no frames; these come first, and what was raised last
        raised = UNREADABLE.findall(error.message.partition("[[{{node")[0])
        if not raised or FRAMES not in error.message:
            raise
        kind, words = raised[-1]
        raise DataError(
            f"data: an image that could be read when the run began no longer can: {kind}: {words.strip()}; put it back"
        ) from error


def _too_large(batch_size: int) -> str:
    if batch_size == 1:
        return "data.batch_size: memory ran out with 1 image a batch; lower data.image_size, or take a smaller backbone"
    half = batch_size // 2
    return (
        f"data.batch_size: memory ran out with {batch_size} images a batch; try --set data.batch_size={half}, with "
        "accumulate: 2 in the stages for the same steps of the optimizer (a BN site that follows the batch then sees "
        f"{half} images at a time)"
    )
