"""Exported files answer as the model in memory does, without any code of ours."""

import errno
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from finetune.batchnorm.moments_file import SavedMoments, load
from finetune.batchnorm.population import input_moments
from finetune.batchnorm.sites import find_sites
from finetune.errors import FinetuneError
from finetune.export import export
from finetune.full_disk import full_disk_as_os_error
from tests.nets import SIZE, images, nested_net


def raw(count=6, height=SIZE, width=SIZE):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    model = nested_net()
    sites = find_sites(model, images(1))
    moments, count = input_moments(model, sites, [images(48)])
    reference = {site.path: m for site, m in zip(sites, moments, strict=True)}
    export(model, folder, SIZE, SavedMoments(reference, count), {"recipe": {"name": "net"}}, raw())
    return folder, model, reference


def test_everything_is_there_and_nothing_else(exported):
    folder, _, _ = exported
    assert sorted(p.name for p in folder.iterdir()) == [
        "model.keras",
        "provenance.json",
        "reference_statistics.npz",
        "saved_model",
    ]
    assert [p.name for p in (folder / "saved_model").iterdir()] == ["1"]


def test_the_saved_model_takes_raw_images_of_any_size(exported):
    folder, model, _ = exported
    served = tf.saved_model.load(str(folder / "saved_model" / "1"))
    same_size = served.serve(tf.constant(raw()))
    np.testing.assert_allclose(same_size, model(raw().astype(np.float32)), atol=1e-6)
    larger = served.serve(tf.constant(raw(2, 31, 17)))
    assert larger.shape == (2, 3)
    np.testing.assert_allclose(np.sum(larger, axis=1), 1.0, atol=1e-5)


def test_the_serving_signature_of_tf_serving_is_there(exported):
    folder, model, _ = exported
    served = tf.saved_model.load(str(folder / "saved_model" / "1"))
    (outputs,) = served.signatures["serving_default"](tf.constant(raw())).values()
    np.testing.assert_allclose(outputs, model(raw().astype(np.float32)), atol=1e-6)


def test_reference_statistics_travel_with_the_saved_model(exported):
    folder, _, reference = exported
    for place in (folder, folder / "saved_model" / "1" / "assets.extra"):
        carried = load(place / "reference_statistics.npz").moments
        assert list(carried) == list(reference)
        for path, moments in reference.items():
            np.testing.assert_array_equal(carried[path].mean, moments.mean)
            np.testing.assert_array_equal(carried[path].m2, moments.m2)
            assert carried[path].count == moments.count
        assert json.loads((place / "provenance.json").read_text())["recipe"]["name"] == "net"


def test_model_keras_loads_where_the_toolkit_is_not(exported):
    folder, model, _ = exported
    script = (
        "import sys, keras, numpy as np; "
        "model = keras.models.load_model(sys.argv[1], safe_mode=True); "
        "assert not [m for m in sys.modules if m.startswith('finetune')]; "
        "x = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8); "
        "np.save(sys.argv[2], model(x.astype('float32')))"
    )
    out = folder.parent / "out.npy"
    subprocess.run(
        [sys.executable, "-c", script, str(folder / "model.keras"), str(out)], check=True, cwd=folder
    )
    np.testing.assert_allclose(np.load(out), model(raw().astype(np.float32)), atol=1e-6)


def test_a_saved_model_that_answers_differently_is_not_published(tmp_path, monkeypatch):
    from finetune import export as module

    monkeypatch.setattr(module, "PARITY_TOLERANCE", -1.0)
    with pytest.raises(FinetuneError, match="differs from the model in memory"):
        export(nested_net(), tmp_path, SIZE, SavedMoments({}, 0), {}, raw())
    assert not (tmp_path / "saved_model" / "1").exists()


def test_a_disk_that_fills_while_the_saved_model_is_written_is_an_os_error(tmp_path, monkeypatch):
    """TensorFlow raises the error that it has for lack of memory."""

    def full(archive, folder, verbose):
        tf.io.write_file("/dev/full", "weights")

    # Keras makes one of the class of its backend
    monkeypatch.setattr(type(keras.export.ExportArchive()), "write_out", full)
    with pytest.raises(OSError, match="No space left on device") as error:
        export(nested_net(), tmp_path, SIZE, SavedMoments({}, 0), {}, raw())
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, f"{tmp_path}/saved_model/1.part")
    assert not (tmp_path / "saved_model" / "1").exists()


def test_other_errors_than_a_full_disk_stay_what_they_are(tmp_path):
    with pytest.raises(tf.errors.ResourceExhaustedError), full_disk_as_os_error(tmp_path):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


def test_keras_can_train_the_reloaded_model_further(exported):
    folder, _, _ = exported
    model = keras.models.load_model(folder / "model.keras")
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert np.isfinite(model.train_on_batch(images(8), np.zeros(8, int)))
