"""Find a TFDS builder and see that its data is there, without waiting minutes for a network that is not."""

from __future__ import annotations

import contextlib
import difflib
import sys
import threading
import urllib.error
import urllib.request

import tensorflow_datasets as tfds

from finetune.datasets.fashion_shift.fashion_shift_dataset_builder import Builder as FashionShift
from finetune.errors import DataError

SECONDS_TO_ANSWER = 10.0
TFDS_BUCKET = "https://storage.googleapis.com/tfds-data"


def prepared_builder(name: str, data_dir: str | None, download: bool) -> tfds.core.DatasetBuilder:
    """The builder of a dataset whose data lies ready, fetched and prepared if need be. Raises DataError."""
    builder = find_builder(name, data_dir)
    if builder.is_prepared():
        return builder
    if not isinstance(builder, FashionShift):
        place = builder.data_dir if data_dir is None else data_dir
        if not download:
            raise DataError(
                f"data.name: {name} is not prepared in {place} and download is false; {advice(name)}"
            )
        if not reachable(first_url(builder)):
            raise DataError(
                f"data.name: {name} is not prepared in {place} and no network answers; {advice(name)}"
            )
    prepare(name, builder)
    return builder


def find_builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Raises DataError for a name, config or version that TFDS does not know."""
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        # its own text lists all of some 450 names
        known = tfds.list_builders(with_community_datasets=False)
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        meant = (
            f"did you mean {', '.join(close)}?"
            if close
            else "see https://www.tensorflow.org/datasets/catalog"
        )
        raise DataError(f"data.name: TFDS has no dataset {name!r}; {meant}") from error
    except (ValueError, AssertionError) as error:
        raise DataError(f"data.name: {str(error).splitlines()[0]}") from error


def prepare(name: str, builder: tfds.core.DatasetBuilder) -> None:
    """Fetch and convert. TFDS prints to stdout, which belongs to results."""
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            builder.download_and_prepare()
    except Exception as error:  # a builder is a stranger's code and may fail in any way
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"data.name: {name} could not be prepared in {builder.data_dir}: {reason}") from error


def advice(name: str) -> str:
    load = f"import tensorflow_datasets as tfds; tfds.load('{name}', data_dir='DIR')"
    return f'on a machine with a network run python -c "{load}", bring DIR here and write data_dir: DIR'


def first_url(builder: tfds.core.DatasetBuilder) -> str:
    """Where the dataset comes from, as far as TFDS knows before it asks."""
    urls = [url for url in builder.url_infos or () if url.startswith("http")]
    return urls[0] if urls else TFDS_BUCKET


def reachable(url: str, seconds: float = SECONDS_TO_ANSWER) -> bool:
    """Whether a server answers within `seconds`; TFDS itself would try for 204 s.

    In a thread, because looking up a name knows no time limit.
    """
    answered = threading.Event()

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=seconds):
                answered.set()
        except urllib.error.HTTPError as error:
            # a refusal is an answer; a failing gateway on the way is none
            if error.code < 500:
                answered.set()
        except OSError:
            pass

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return answered.is_set()


def check_features(name: str, features: tfds.features.FeatureConnector) -> None:
    """Raises DataError unless there is one uint8 image of 1 or 3 channels and one label of at least two classes."""
    found = ", ".join(features) if isinstance(features, tfds.features.FeaturesDict) else "no named features"
    if not {"image", "label"} <= set(found.split(", ")):
        raise DataError(f"data.name: {name} has {found}; an image and a label are needed")
    image, label = features["image"], features["label"]
    if not isinstance(label, tfds.features.ClassLabel) or label.num_classes < 2:
        raise DataError(f"data.name: the label of {name} is {label}; at least two classes are needed")
    if (
        not isinstance(image, tfds.features.Image)
        or image.np_dtype != "uint8"
        or image.shape[-1] not in (1, 3)
    ):
        raise DataError(f"data.name: the image of {name} is {image}; uint8 of 1 or 3 channels is needed")
