"""Checkpoints are read and patched without TensorFlow as TensorFlow itself reads them."""

import numpy as np
import pytest
import tensorflow as tf

from finetune.errors import ModelError
from finetune.formats.crc32c import crc32c
from finetune.formats.tensor_bundle import TensorBundle

v1 = tf.compat.v1


@pytest.fixture
def prefix(tmp_path):
    """A checkpoint with tensors of several dtypes and enough of them for more than one index block."""
    random = np.random.default_rng(0)
    names = [f"layer_{number}/{'long_name' * 5}" for number in range(200)]
    tensors = [random.normal(size=(number % 7, 3)).astype(np.float32) for number in range(200)]
    tensors[5] = tf.cast(tensors[5], tf.bfloat16)
    tensors[6] = tf.constant(["some", "words"])
    path = str(tmp_path / "variables")
    tf.raw_ops.SaveV2(prefix=path, tensor_names=names, shape_and_slices=[""] * 200, tensors=tensors)
    return tmp_path / "variables"


def test_crc32c_is_that_of_the_standard():
    assert crc32c(b"123456789") == 0xE3069283
    # RFC 3720, appendix B.4
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


@pytest.mark.parametrize("size", [0, 1, 3, 1023, 1024, 1025, 5000, 70001])
def test_long_data_have_the_checksum_that_tensorflow_gives_them(size, tmp_path):
    data = np.random.default_rng(size).integers(0, 256, size).astype(np.uint8)
    path = str(tmp_path / "variables")
    tf.raw_ops.SaveV2(prefix=path, tensor_names=["a"], shape_and_slices=[""], tensors=[data])
    np.testing.assert_array_equal(TensorBundle(tmp_path / "variables").read("a"), data)


def test_every_tensor_is_read_as_tensorflow_reads_it(prefix):
    bundle, reader = TensorBundle(prefix), tf.train.load_checkpoint(str(prefix))
    assert set(bundle.keys) == set(reader.get_variable_to_shape_map())
    for key in bundle.keys:
        if bundle.dtype(key) is not None:
            assert bundle.read(key).tobytes() == np.asarray(reader.get_tensor(key)).tobytes()
    bundle.verify()


def test_a_patch_changes_one_tensor_and_its_checksums(prefix):
    bundle = TensorBundle(prefix)
    key = bundle.keys[10]
    before = {k: bundle.read(k) for k in bundle.keys if bundle.dtype(k) is not None}
    value = np.full(bundle.shape(key), 7.25)
    changed = bundle.patch({key: value})
    reader = tf.train.load_checkpoint(str(prefix))
    np.testing.assert_array_equal(np.asarray(reader.get_tensor(key)), value)
    for other, old in before.items():
        if other != key:
            assert np.asarray(reader.get_tensor(other)).tobytes() == old.tobytes()
    # four bytes of the tensor's checksum and four of its block's, at most
    assert 0 < changed["variables.index"] <= 8


def test_a_tensor_of_another_shape_is_refused_before_anything_is_written(prefix):
    bundle = TensorBundle(prefix)
    before = prefix.with_name("variables.index").read_bytes()
    with pytest.raises(ModelError, match="has shape"):
        bundle.patch({bundle.keys[10]: np.zeros(1)})
    assert prefix.with_name("variables.index").read_bytes() == before


def test_changed_data_are_noticed(prefix):
    data = prefix.with_name("variables.data-00000-of-00001")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with pytest.raises(ModelError, match="checksum"):
        TensorBundle(prefix).verify()
