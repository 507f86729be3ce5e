"""A small classifier that was really trained, in service behind a camera: fine-tuned in fog with frozen statistics.

Its weights lie beside this file: how far they move under frozen statistics differs between processors and seeds, and
with it what plain recalibration ruins (.80 left of .82 with other kernels, .36 of .69 with these). To train it again:

    TF_ENABLE_ONEDNN_OPTS=0 uv run python -m tests.trained_service
"""

import gzip
from pathlib import Path

import keras
import numpy as np
from keras import layers

import finetune.datasets.fashion_shift as fashion
from finetune.batchnorm.measure import measure
from finetune.batchnorm.population import input_moments
from finetune.batchnorm.sites import find_sites

SIZE = 14
WEIGHTS = Path(__file__).with_suffix(".npz")
TRAIN, CALIBRATION, TEST = slice(0, 6000), slice(6000, 6512), slice(8000, 10000)


def fashion_images():
    """The images that the package carries, 14 x 14 x 3 with values 0..255, and their classes."""
    folder = Path(fashion.__file__).parent
    pixels, classes = (
        np.frombuffer(gzip.decompress((folder / f"t10k-{name}-ubyte.gz").read_bytes()), np.uint8)
        for name in ("images-idx3", "labels-idx1")
    )
    halved = pixels[16:].reshape(-1, SIZE, 2, SIZE, 2).mean((2, 4))
    return np.repeat(np.round(halved)[..., None], 3, -1).astype(np.float32), classes[8:].astype(int)


def in_fog(images):
    return np.round(images * 0.5 + 0.45 * 255)


def four_sites():
    inputs = keras.Input((SIZE, SIZE, 3))
    hidden = layers.Rescaling(1 / 255)(inputs)
    for filters, stride in ((16, 1), (24, 2), (32, 2), (48, 1)):
        hidden = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(hidden)
        hidden = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(hidden))
    pooled = layers.GlobalAveragePooling2D()(hidden)
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(pooled))


class Service:
    """model: as it was deployed. fog: what it was fine-tuned on. dark: what it sees since. reference: by site path."""

    def __init__(self):
        self.clean, self.classes = fashion_images()
        self.fog = in_fog(self.clean)
        self.dark = np.round(self.fog * 0.4)
        self.model = four_sites()
        with np.load(WEIGHTS) as weights:
            self.model.set_weights([weights[f"arr_{i}"] for i in range(len(weights))])
        self.sites = find_sites(self.model, self.clean[:1])
        for site in self.sites:
            site.freeze()
        self.trained = [site.statistics for site in self.sites]
        moments, self.reference_images = input_moments(self.model, self.sites, [self.fog[:2048]])
        self.reference = {site.path: m for site, m in zip(self.sites, moments, strict=True)}

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


def train():
    """The model that is in service: trained on clean images, then frozen and fine-tuned in fog."""
    keras.utils.set_random_seed(0)
    clean, classes = fashion_images()
    model = four_sites()
    fit(model, clean, classes, rate=0.1, epochs=4)
    for site in find_sites(model, clean[:1]):
        site.freeze()
    fit(model, in_fog(clean), classes, rate=0.02, epochs=3)
    return model


def fit(model, images, classes, rate, epochs):
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), "sparse_categorical_crossentropy")
    model.fit(images[TRAIN], classes[TRAIN], batch_size=64, epochs=epochs, verbose=0)


if __name__ == "__main__":
    np.savez(WEIGHTS, *train().get_weights())
