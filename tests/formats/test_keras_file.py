"""Keras files: recalibrated as the live model is, to the bit, and copied with nothing else changed."""

import io
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

from finetune.batchnorm.layerwise import layerwise
from finetune.batchnorm.population import one_pass
from finetune.batchnorm.sites import find_sites
from finetune.errors import ModelError
from finetune.formats.keras_file import open_keras_file
from tests.formats.recalibrating import recalibrate, recalibrated
from tests.nets import SIZE, custom_layer_net, disturbed, functional_net, nested_net, photographs

ENDINGS = (".keras", ".h5")
NETS = [(functional_net, ".keras"), (nested_net, ".h5"), (custom_layer_net, ".keras")]


def saved(net, folder, ending=".keras"):
    folder.mkdir(exist_ok=True)
    path = folder / f"model{ending}"
    net.save(path)
    return path


def fed(model, images):
    return {model.inputs[0].name: images}


def predictions(model, images):
    (values,) = model.predict(fed(model, images)).values()
    return values


def statistics(model):
    return [values for site in model.sites for values in (site.statistics.mean, site.statistics.variance)]


@pytest.mark.parametrize(("make", "ending"), NETS)
def test_a_recalibrated_file_is_the_live_model_measured_anew(make, ending, tmp_path):
    path = saved(make(), tmp_path, ending)
    before, images = path.read_bytes(), photographs()
    model = open_keras_file(path)
    np.testing.assert_allclose(predictions(model, images), make().predict(images, verbose=0), atol=1e-6)
    recalibrate_in(model, [images[:20], images[20:]])
    copy = tmp_path / f"copy{ending}"
    changed = model.write(copy)

    live = recalibrated(make(), images)
    again = keras.saving.load_model(copy, compile=False)
    for ours, theirs in zip(again.weights, live.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    np.testing.assert_array_equal(predictions(model, images), again.predict_on_batch(images))
    after = copy.read_bytes()
    assert path.read_bytes() == before
    assert len(after) == len(before)
    assert changed == sum(a != b for a, b in zip(before, after, strict=True))
    assert others(path) == others(copy)


def recalibrate_in(model, batches):
    """In the very batches in which a live model was measured: float32 rounds as they are cut."""

    def settle(number, moments, images):
        model.sites[number].store(moments.statistics())
        return 0.0

    epsilons = [site.epsilon for site in model.sites]
    layerwise(model.network(), batches, settle, memory=10**9, epsilons=epsilons)


def others(path):
    """Everything in a file but running statistics: members of the archive, and bytes of the weights around them."""
    content = path.read_bytes()
    members = {}
    if content.startswith(b"PK"):
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        content = members.pop("model.weights.h5")
    around = bytearray(content)
    for offset, size in statistic_places(content):
        around[offset : offset + size] = bytes(size)
    return members, bytes(around)


def statistic_places(content):
    """Where Keras puts them: moving_* in `.h5`; in `.keras` the third and fourth variable, which only sites have."""
    found = []

    def note(name, thing):
        if isinstance(thing, h5py.Dataset) and ("moving_" in name or name.endswith(("vars/2", "vars/3"))):
            found.append((thing.id.get_offset(), thing.nbytes))

    with h5py.File(io.BytesIO(content)) as file:
        file.visititems(note)
    assert found
    return found


def test_measuring_twice_changes_no_byte(tmp_path):
    model = open_keras_file(saved(functional_net(), tmp_path))
    recalibrate(model, photographs())
    model.write(tmp_path / "second.keras")
    second = open_keras_file(tmp_path / "second.keras")
    recalibrate(second, photographs())
    assert second.write(tmp_path / "third.keras") == 0
    assert (tmp_path / "third.keras").read_bytes() == (tmp_path / "second.keras").read_bytes()


def test_datasets_are_found_by_what_loads_from_them_even_where_all_values_are_equal(tmp_path):
    """A fresh net: every mean is 0, as every beta; every variance is 1, as every gamma."""
    image = keras.Input((SIZE, SIZE, 3))
    x = image
    for _ in range(3):
        x = layers.BatchNormalization()(layers.Conv2D(4, 1)(x))
    model = open_keras_file(saved(keras.Model(image, x), tmp_path))
    for number, site in enumerate(model.sites):
        mean = np.full(4, number + 0.25)
        site.store(type(site.statistics)(mean, mean + 0.5))
    model.write(tmp_path / "new.keras")
    again = keras.saving.load_model(tmp_path / "new.keras")
    sites = [layer for layer in again.layers if isinstance(layer, layers.BatchNormalization)]
    assert [float(site.moving_mean[0]) for site in sites] == [0.25, 1.25, 2.25]
    assert [float(site.moving_variance[0]) for site in sites] == [0.75, 1.75, 2.75]
    assert all(np.all(np.asarray(site.beta) == 0) and np.all(np.asarray(site.gamma) == 1) for site in sites)


def test_one_pass_is_that_of_the_live_model(tmp_path):
    net, images = functional_net(), photographs()
    model = open_keras_file(saved(net, tmp_path))
    ours, count = model.one_pass([fed(model, images[:20]), fed(model, images[20:])])
    live, _ = one_pass(net, find_sites(net, images[:1]), [images[:20], images[20:]])
    assert count == 48
    for a, b in zip(ours, live, strict=True):
        np.testing.assert_array_equal(a.mean, b.mean)
        np.testing.assert_array_equal(a.m2, b.m2)


def test_sites_that_are_never_called_are_unused(tmp_path):
    image = keras.Input((SIZE, SIZE, 3), name="image")
    shared = layers.BatchNormalization(name="shared")
    both = layers.Add()([shared(image), shared(layers.ReLU()(image))])
    model = open_keras_file(saved(keras.Model(image, both), tmp_path))
    assert [(site.path, site.calls) for site in model.sites] == [("shared", 2)]
    assert model.unused == []
    assert [(each.name, each.shape, each.dtype) for each in model.inputs] == [
        ("image", (None, SIZE, SIZE, 3), "float32")
    ]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_compressed_archive_or_dataset_is_handled_or_refused(ending, tmp_path):
    path = saved(functional_net(), tmp_path, ending)
    small = tmp_path / f"small{ending}"
    if ending == ".keras":
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED) as new:
            for name in old.namelist():
                new.writestr(name, old.read(name))
        model = open_keras_file(small)
        recalibrate(model, photographs())
        model.write(tmp_path / "new.keras")
        again = open_keras_file(tmp_path / "new.keras")
        for ours, theirs in zip(statistics(again), statistics(model), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        return
    with h5py.File(path) as old, h5py.File(small, "w") as new:
        new.attrs.update(old.attrs)
        old.visititems(lambda name, thing: copied(name, thing, new))
    with pytest.raises(ModelError, match=r"bn_1.*cannot be replaced in place"):
        open_keras_file(small)


def copied(name, thing, new):
    if isinstance(thing, h5py.Dataset):
        squeezed = {"compression": "gzip"} if thing.shape else {}
        made = new.create_dataset(name, data=thing[()], **squeezed)
    else:
        made = new.require_group(name)
    made.attrs.update(thing.attrs)


def test_keras_2_files_are_read(tmp_path):
    tf_keras = pytest.importorskip("tf_keras")
    image = tf_keras.Input((SIZE, SIZE, 3))
    x = tf_keras.layers.BatchNormalization(name="bn_1")(tf_keras.layers.Conv2D(4, 3)(image))
    x = tf_keras.layers.BatchNormalization(name="bn_2")(tf_keras.layers.ReLU()(x))
    old = tf_keras.Model(image, tf_keras.layers.GlobalAveragePooling2D()(x))
    old.save(tmp_path / "old.h5")
    model, images = open_keras_file(tmp_path / "old.h5"), photographs()
    recalibrate(model, images)
    model.write(tmp_path / "new.h5")
    again = tf_keras.models.load_model(tmp_path / "new.h5", compile=False)
    np.testing.assert_allclose(again.predict(images, verbose=0), predictions(model, images), atol=1e-5)
    seen = np.asarray(tf_keras.Model(again.input, again.layers[1].output)(images), np.float64)
    np.testing.assert_allclose(again.get_layer("bn_1").moving_mean, seen.mean((0, 1, 2)), atol=1e-5)


def weights_alone(folder):
    functional_net().save_weights(folder / "model.weights.h5")
    return folder / "model.weights.h5"


def no_site(folder):
    return saved(keras.Sequential([keras.Input((4,)), layers.Dense(3)]), folder)


def renorm(folder):
    return saved(keras.Sequential([keras.Input((4,)), layers.BatchNormalization(renorm=True)]), folder)


def with_lambda(folder):
    stack = [keras.Input((4,)), layers.Lambda(lambda x: x * 2), layers.BatchNormalization()]
    return saved(disturbed(keras.Sequential(stack)), folder)


def two_inputs(folder):
    a, b = keras.Input((4,)), keras.Input((4,))
    return saved(keras.Model([a, b], layers.BatchNormalization()(layers.Add()([a, b]))), folder)


def unknown_class(folder):
    layer = type("Gone", (layers.Dense,), {"__module__": "gone"})
    return saved(keras.Sequential([keras.Input((4,)), layer(3), layers.BatchNormalization()]), folder)


def unknown_class_in_h5(folder):
    layer = type("Gone", (layers.Dense,), {"__module__": "gone"})
    return saved(keras.Sequential([keras.Input((4,)), layer(3), layers.BatchNormalization()]), folder, ".h5")


def cut_short(folder):
    path = saved(functional_net(), folder)
    path.write_bytes(path.read_bytes()[:-100])
    return path


def climbing(folder):
    path = saved(functional_net(), folder)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../outside", b"x")
    return path


def bomb(folder):
    path = saved(functional_net(), folder)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/large", bytes(5_000_000))
    return path


def text(folder):
    path = folder / "model.keras"
    path.write_text("not a model")
    return path


REFUSED = {
    weights_alone: "weights alone",
    no_site: "no BN site",
    renorm: "renorm",
    with_lambda: "Lambda layer.*--trust",
    two_inputs: "takes 2 inputs.*SavedModel",
    unknown_class: "code that is not here.*SavedModel",
    unknown_class_in_h5: "code that is not here.*SavedModel",
    cut_short: "damaged",
    climbing: "outside of the archive.*do not trust",
    bomb: "inflate.*do not trust",
    text: "neither a zip nor an HDF5",
    lambda folder: folder / "nothing.keras": "found nothing",
}


@pytest.mark.parametrize(("make", "reason"), REFUSED.items())
def test_what_cannot_be_recalibrated_is_refused_with_the_reason_in_one_line(make, reason, tmp_path):
    path = make(tmp_path)
    with pytest.raises(ModelError, match=reason) as refusal:
        open_keras_file(path)
    (line,) = refusal.value.problems
    assert "\n" not in line
    assert line.startswith(str(path))


def test_a_lambda_runs_where_the_file_is_trusted(tmp_path):
    model = open_keras_file(with_lambda(tmp_path), trust=True)
    batch = np.random.default_rng(0).normal(3, 1, (20, 4)).astype(np.float32)
    recalibrate(model, batch)
    np.testing.assert_allclose(model.sites[0].statistics.mean, 2 * batch.mean(0), rtol=1e-5)


def test_a_copy_that_loads_otherwise_leaves_nothing_behind(tmp_path, monkeypatch):
    model = open_keras_file(saved(functional_net(), tmp_path / "in"))
    recalibrate(model, photographs())
    monkeypatch.setattr("finetune.formats.keras_file.patched", lambda weights, *rest: weights)
    with pytest.raises(ModelError, match="other statistics at bn_1"):
        model.write(tmp_path / "deep" / "new.keras")
    assert [each.name for each in tmp_path.iterdir()] == ["in"]
    with pytest.raises(ModelError, match="exists"):
        model.write(model.path)
