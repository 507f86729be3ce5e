"""Find a TFDS builder and see that its data is there, without waiting minutes for a network that is not."""

from __future__ import annotations

import contextlib
import difflib
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from finetune.datasets.elpv.elpv_dataset_builder import Builder as Elpv
from finetune.datasets.fashion_shift.fashion_shift_dataset_builder import Builder as FashionShift
from finetune.datasets.network import answers
from finetune.errors import DataError
from finetune.folder_lock import alone_behind

WITHOUT_NETWORK = (FashionShift, Elpv)
"""Prepared from what is installed."""

TFDS_BUCKET = "https://storage.googleapis.com/tfds-data"


def prepared_builder(name: str, data_dir: str | None, download: bool) -> tfds.core.DatasetBuilder:
    """The builder of a dataset whose data lies ready, fetched and prepared if need be. Raises DataError."""
    builder = find_builder(name, data_dir)
    if builder.is_prepared():
        return builder
    if not isinstance(builder, WITHOUT_NETWORK):
        missing = f"data.name: {name} is not prepared in {data_dir or builder.data_dir}"
        if not download:
            raise DataError(f"{missing} and download is false; {advice(name)}")
        # asked first: without a network TFDS tries for 204 s
        if not answers(first_url(builder)):
            raise DataError(f"{missing} and no network answers; {advice(name)}")
    with contextlib.nullcontext() if "://" in str(builder.data_dir) else _one_at_a_time(builder):
        # another process may have prepared it by now, and this builder does not know what lies there
        builder = find_builder(name, data_dir)
        if not builder.is_prepared():
            prepare(name, builder)
    return builder


@contextlib.contextmanager
def _one_at_a_time(builder: tfds.core.DatasetBuilder) -> Iterator[None]:
    """Of several processes that would prepare one dataset in one place, the others wait."""
    lock = Path(f"{builder.data_dir}.lock")
    with contextlib.ExitStack() as stack:
        # what is wrong with a place that cannot be written TFDS says
        with contextlib.suppress(OSError):
            lock.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(alone_behind(lock))
        yield


def find_builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Raises DataError for a name, config or version that TFDS does not know."""
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        # its own text lists all of some 450 names
        known = sorted(set(tfds.list_builders(with_community_datasets=False)))
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        catalogue = "see https://www.tensorflow.org/datasets/catalog"
        meant = f"did you mean {', '.join(close)}?" if close else catalogue
        raise DataError(f"data.name: TFDS has no dataset {name!r}; {meant}") from error
    except (ValueError, AssertionError) as error:
        # TFDS puts all arguments before the reason
        reason = textwrap.shorten(str(error).rpartition('}": ')[2], 300)
        raise DataError(f"data.name: {name!r}: {reason}") from error


def prepare(name: str, builder: tfds.core.DatasetBuilder) -> None:
    """Fetch and convert. TFDS prints to stdout, which belongs to results."""
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            builder.download_and_prepare()
    except DataError:
        raise
    except Exception as error:  # a builder is a stranger's code and may fail in any way
        reason = textwrap.shorten(str(error), 300) or type(error).__name__
        raise DataError(f"data.name: {name} could not be prepared in {builder.data_dir}: {reason}") from error


def advice(name: str) -> str:
    load = f"import tensorflow_datasets as tfds; tfds.load('{name}', data_dir='DIR')"
    return f'on a machine with a network run python -c "{load}", bring DIR here and write data_dir: DIR'


def first_url(builder: tfds.core.DatasetBuilder) -> str:
    """Where the dataset comes from, as far as TFDS knows before it asks."""
    urls = [url for url in builder.url_infos or () if url.startswith("http")]
    return urls[0] if urls else TFDS_BUCKET


def check_features(name: str, features: tfds.features.FeatureConnector) -> None:
    """Raises DataError unless there is one uint8 image of 1 or 3 channels and one label of at least two classes."""
    found = list(features) if isinstance(features, tfds.features.FeaturesDict) else ["no named features"]
    if not {"image", "label"} <= set(found):
        raise DataError(f"data.name: {name} has {', '.join(found)}; an image and a label are needed")
    image, label = features["image"], features["label"]
    if not isinstance(label, tfds.features.ClassLabel) or label.num_classes < 2:
        raise DataError(f"data.name: the label of {name} is {label}; at least two classes are needed")
    is_image = isinstance(image, tfds.features.Image)
    if not is_image or image.np_dtype != np.uint8 or image.shape[-1] not in (1, 3):
        raise DataError(f"data.name: the image of {name} is {image}; uint8 of 1 or 3 channels is needed")
