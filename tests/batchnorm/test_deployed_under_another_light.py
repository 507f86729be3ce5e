"""A network fine-tuned with frozen statistics, then a darker camera: plain measuring ruins it, matched restores it."""

import gzip
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import finetune.datasets.fashion_shift as fashion
from finetune.batchnorm.measure import measure, residual
from finetune.batchnorm.population import input_moments
from finetune.batchnorm.sites import find_sites

TRAIN, CALIBRATION, TEST = slice(0, 6000), slice(6000, 6512), slice(8000, 10000)


def fashion_images():
    """The images that the package carries, 14 x 14 in [0, 1], and their classes."""
    folder = Path(fashion.__file__).parent
    pixels, classes = (
        np.frombuffer(gzip.decompress((folder / f"t10k-{name}-ubyte.gz").read_bytes()), np.uint8)
        for name in ("images-idx3", "labels-idx1")
    )
    halved = pixels[16:].reshape(-1, 14, 2, 14, 2).mean((2, 4)) / 255
    return halved[..., None].astype(np.float32), classes[8:].astype(int)


def four_sites():
    hidden = inputs = keras.Input((14, 14, 1))
    for filters, stride in ((16, 1), (24, 2), (32, 2), (48, 1)):
        hidden = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(hidden)
        hidden = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(hidden))
    pooled = layers.GlobalAveragePooling2D()(hidden)
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(pooled))


class Service:
    """The model in service, its sites as they were trained, and what it sees."""

    def __init__(self):
        keras.utils.set_random_seed(0)
        images, self.classes = fashion_images()
        self.model = four_sites()
        self.fit(images, rate=0.1, epochs=4)
        self.sites = find_sites(self.model, images[:1])
        for site in self.sites:
            site.freeze()
        self.fog = images * 0.5 + 0.45
        self.fit(self.fog, rate=0.02, epochs=3)
        self.dark = self.fog * 0.4
        self.trained = [site.statistics for site in self.sites]
        moments, _ = input_moments(self.model, self.sites, [self.fog[:2048]])
        self.reference = {site.path: m for site, m in zip(self.sites, moments, strict=True)}

    def fit(self, images, rate, epochs):
        self.model.compile(keras.optimizers.SGD(rate, momentum=0.9), "sparse_categorical_crossentropy")
        self.model.fit(images[TRAIN], self.classes[TRAIN], batch_size=64, epochs=epochs, verbose=0)

    def accuracy(self, images):
        answers = self.model.predict(images[TEST], batch_size=500, verbose=0).argmax(1)
        return float(np.mean(answers == self.classes[TEST]))

    def after_measuring(self, images, **options):
        """Accuracy once the statistics are measured on other images of the same kind; they are given back."""
        measure(self.model, self.sites, lambda: np.split(images[CALIBRATION], 4), **options)
        accuracy = self.accuracy(images)
        for site, statistics in zip(self.sites, self.trained, strict=True):
            site.store(statistics)
        return accuracy


@pytest.fixture(scope="module")
def service():
    return Service()


def test_the_weights_moved_under_the_statistics(service):
    assert service.accuracy(service.fog) > 0.5
    assert residual(service.model, service.sites, [service.fog[:2048]]) > 0.5


@pytest.mark.parametrize("method", ["layerwise", "one_pass"])
def test_matched_restores_the_darkened_camera_within_a_point_and_plain_ruins_it(service, method):
    in_service = service.accuracy(service.fog)
    assert service.accuracy(service.dark) < in_service - 0.1
    matched = service.after_measuring(service.dark, reference=service.reference, method=method)
    plain = service.after_measuring(service.dark, method=method)
    assert abs(matched - in_service) <= 0.01
    assert plain < in_service - 0.05


def test_where_nothing_changed_matched_stays_below_sampling_noise_and_plain_does_not(service):
    in_service = service.accuracy(service.fog)
    noise = np.sqrt(in_service * (1 - in_service) / (TEST.stop - TEST.start))
    assert abs(service.after_measuring(service.fog, reference=service.reference) - in_service) < noise
    assert service.after_measuring(service.fog) < in_service - 3 * noise
