"""A worker that went away: the others cannot go on, and say so in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune.distribution.replicas import Replicas
from finetune.errors import WorkerLostError


def again(folder: Path) -> str:
    """What to do where a run was under way in this folder."""
    return f"what was trained is kept; start all workers again with: finetune run --resume {folder}"


@contextmanager
def loss_in_words(replicas: Replicas, what_to_do: str) -> Iterator[None]:
    """Inside the block a worker that does not answer any more is a WorkerLostError. what_to_do: how it goes on."""
    if replicas.workers == 1:
        yield
        return
    import tensorflow as tf

    errors = tf.errors
    gone = (
        errors.UnavailableError,
        errors.AbortedError,
        errors.CancelledError,
        errors.DeadlineExceededError,
        errors.InternalError,
        errors.UnknownError,
    )
    try:
        yield
    except gone as error:
        raise WorkerLostError(
            f"{replicas.cluster}: another worker ended or cannot be reached, and none can go on alone; {what_to_do}"
        ) from error
