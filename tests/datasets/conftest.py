"""Data sets on disk, made once a session."""

import pytest
import tensorflow_datasets as tfds

from finetune.datasets.tfds_builder import prepare
from tests.datasets.pictures import TinyShapes


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory):
    """Where tiny_shapes lies prepared."""
    folder = str(tmp_path_factory.mktemp("tiny"))
    prepare("tiny_shapes", TinyShapes(data_dir=folder))
    return folder


@pytest.fixture
def flowers(tmp_path):
    """oxford_flowers102 as TFDS mocks it: six random images in each of its three splits, nothing fetched."""
    builder = tfds.builder("oxford_flowers102", data_dir=str(tmp_path))
    sizes = [tfds.core.SplitInfo(name, [6], 1000) for name in ("train", "validation", "test")]
    builder.info.set_splits(tfds.core.SplitDict(sizes))
    builder.data_path.mkdir(parents=True)
    builder.info.write_to_directory(builder.data_path)
    with tfds.testing.mock_data(num_examples=6, data_dir=str(tmp_path)):
        yield "oxford_flowers102"
