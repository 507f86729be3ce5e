"""Import TensorFlow and its neighbours without their chatter about the machine."""

from __future__ import annotations

import gc
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from finetune.keras_backend import require_backend

CHATTY = ("tensorflow", "absl")


def import_quietly(*, any_backend: bool = False) -> None:
    """Import what a run needs. any_backend: it may compute on JAX.

    Raises InputError where Keras has no backend for it; errors of the import itself are raised as ever.
    """
    require_backend(any_known=any_backend)
    # 3: TensorFlow's C++ side writes dozens of lines about the machine otherwise
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow leaves oneDNN off on processors without AVX-512, where a training step takes 2.5 times as long
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with _muted_stderr(), _left_alone():
        import keras_cv  # noqa: F401 - registers the layers its backbones are made of
        import tensorflow  # noqa: F401
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    # raised inside keras at every conversion of a variable under NumPy 2; nothing a person could act on
    warnings.filterwarnings("ignore", message="__array__ implementation", category=DeprecationWarning)


@contextmanager
def _left_alone() -> Iterator[None]:
    """Let no garbage collection look at what is imported inside the block, neither now nor later.

    It would look at objects that stay, again and again while they are made.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


@contextmanager
def _muted_stderr() -> Iterator[None]:
    """Send file descriptor 2 away inside the block: the lines come from C++ before its logging is set up."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
