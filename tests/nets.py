"""Small networks with three BN sites in depth, and the same network in NumPy float64 as the oracle."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

CLASSES = 3
SIZE = 8


def functional_net(seed: int = 0) -> keras.Model:
    """Convolution, convolution with a residual join, dense: a site behind each."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((SIZE, SIZE, 3), name="image")
    first = layers.Conv2D(6, 3, padding="valid", use_bias=False, name="conv_1")(inputs)
    first = layers.ReLU()(layers.BatchNormalization(name="bn_1", momentum=0.9)(first))
    second = layers.Conv2D(6, 1, name="conv_2")(first)
    second = layers.BatchNormalization(name="bn_2", momentum=0.99)(second)
    joined = layers.ReLU()(layers.Add()([first, second]))
    pooled = layers.GlobalAveragePooling2D()(joined)
    dense = layers.Dense(5, name="dense")(layers.Dropout(0.5)(pooled))
    outputs = layers.Dense(CLASSES, activation="softmax", name="out")(
        layers.ReLU()(layers.BatchNormalization(name="bn_3", momentum=0.999)(dense))
    )
    return disturbed(keras.Model(inputs, outputs, name="net"), seed)


def with_baked_training_flag():
    """The pattern of Keras' own transfer learning guide, but for the frozen layers."""
    backbone = functional_net()
    inputs = keras.Input((SIZE, SIZE, 3))
    outputs = layers.Dense(3, activation="softmax")(backbone(inputs, training=False))
    return keras.Model(inputs, outputs), backbone.get_layer("bn_1")


def without_top(image_size: int) -> keras.Model:
    """A backbone that a recipe names as tests.nets:without_top."""
    inputs = keras.Input((image_size, image_size, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3)(inputs))
    return keras.Model(inputs, layers.BatchNormalization()(layers.Conv2D(6, 3)(layers.ReLU()(x))))


def tiny_backbone() -> keras.Model:
    """Two sites in depth on images of 12 px, for recipes whose backbone is a saved one."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12, 12, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    for number in (1, 2):
        x = layers.Conv2D(6, 3, name=f"conv_{number}")(x)
        x = layers.ReLU()(layers.BatchNormalization(name=f"bn_{number}")(x))
    return disturbed(keras.Model(inputs, x, name="tiny"))


def nested_net(seed: int = 0) -> keras.Model:
    """The same sites inside a model inside a model."""
    inner = functional_net(seed)
    inputs = keras.Input((SIZE, SIZE, 3))
    return keras.Model(inputs, layers.Dense(CLASSES, activation="softmax")(inner(inputs)), name="outer")


@keras.saving.register_keras_serializable("tests")
class Block(layers.Layer):
    """A custom layer with a site inside, as keras-cv's EfficientNetV2 has; one more site is never called."""

    def __init__(self, filters: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.conv = layers.Conv2D(filters, 1)
        self.bn = layers.BatchNormalization(name="inner_bn")
        self.idle = layers.BatchNormalization(name="idle_bn")

    def call(self, inputs, training=None):
        return keras.ops.relu(self.bn(self.conv(inputs), training=training))


def custom_layer_net(seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = Block(5, name="block_2")(Block(4, name="block_1")(inputs))
    outputs = layers.Dense(CLASSES, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    return disturbed(keras.Model(inputs, outputs, name="custom"), seed)


class Subclassed(keras.Model):
    """A model by subclassing, whose `call` takes `training`."""

    def __init__(self) -> None:
        super().__init__(name="subclassed")
        self.conv_1, self.conv_2 = layers.Conv2D(4, 3), layers.Conv2D(4, 3)
        self.bn_1, self.bn_2 = layers.BatchNormalization(), layers.BatchNormalization()
        self.pool = layers.GlobalAveragePooling2D()
        self.out = layers.Dense(CLASSES, activation="softmax")

    def call(self, inputs, training=None):
        x = keras.ops.relu(self.bn_1(self.conv_1(inputs), training=training))
        x = keras.ops.relu(self.bn_2(self.conv_2(x), training=training))
        return self.out(self.pool(x))


def subclassed_net(seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = Subclassed()
    model(np.zeros((1, SIZE, SIZE, 3), np.float32))
    return disturbed(model, seed)


NETS = {
    "functional": functional_net,
    "nested": nested_net,
    "custom_layer": custom_layer_net,
    "subclassed": subclassed_net,
}


def disturbed(model: keras.Model, seed: int = 0) -> keras.Model:
    """Random statistics, gammas and betas, so that no law holds by the symmetry of zeros and ones."""
    random = np.random.default_rng(seed + 100)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization) and layer.moving_mean is not None:
            channels = layer.moving_mean.shape[0]
            layer.gamma.assign(random.uniform(0.5, 1.5, channels))
            layer.beta.assign(random.normal(0, 0.5, channels))
            layer.moving_mean.assign(random.normal(0, 0.3, channels))
            layer.moving_variance.assign(random.uniform(0.5, 2.0, channels))
    return model


def images(count: int = 48, seed: int = 1, loc: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(loc, scale, (count, SIZE, SIZE, 3)).astype(np.float32)


def photographs(count: int = 48, seed: int = 1, loc: float = 0.4) -> np.ndarray:
    """Images that differ among themselves in brightness and contrast, so that pooled features have a spread."""
    random = np.random.default_rng(seed)
    contrast, brightness = random.uniform(0.2, 3.0, (2, count, 1, 1, 1))
    return ((images(count, seed) * contrast) + brightness - 1.6 + loc).astype(np.float32)


def labels(count: int = 48, seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, CLASSES, count)


def compile_and_fit(model: keras.Model, epochs: int = 1, count: int = 48, rate: float = 0.05) -> None:
    model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images(count), labels(count), batch_size=16, epochs=epochs, verbose=0)


class NumpyNet:
    """`functional_net` in float64, written from the definition of the operations alone."""

    def __init__(self, model: keras.Model) -> None:
        self.values = {
            f"{layer.name}/{v.name}": np.asarray(v, np.float64)
            for layer in model.layers
            for v in layer.weights
        }
        self.epsilon = {f"bn_{i}": model.get_layer(f"bn_{i}").epsilon for i in (1, 2, 3)}

    def site_inputs(self, batch: np.ndarray, *, normalise_with_batch: bool) -> dict[str, np.ndarray]:
        """The input of every site for one batch, (values, channels)."""
        seen: dict[str, np.ndarray] = {}

        def normalise(name: str, x: np.ndarray) -> np.ndarray:
            flat = seen[name] = x.reshape(-1, x.shape[-1])
            mean, variance = self.values[f"{name}/moving_mean"], self.values[f"{name}/moving_variance"]
            if normalise_with_batch:
                mean, variance = flat.mean(0), flat.var(0)
            scaled = (x - mean) / np.sqrt(variance + self.epsilon[name])
            return scaled * self.values[f"{name}/gamma"] + self.values[f"{name}/beta"]

        x = batch.astype(np.float64)
        kernel = self.values["conv_1/kernel"]
        side = SIZE - 2
        windows = [x[:, i : i + side, j : j + side] @ kernel[i, j] for i in range(3) for j in range(3)]
        first = np.maximum(normalise("bn_1", sum(windows)), 0)
        second = first @ self.values["conv_2/kernel"][0, 0] + self.values["conv_2/bias"]
        joined = np.maximum(first + normalise("bn_2", second), 0)
        dense = joined.mean((1, 2)) @ self.values["dense/kernel"] + self.values["dense/bias"]
        hidden = np.maximum(normalise("bn_3", dense), 0)
        logits = hidden @ self.values["out/kernel"] + self.values["out/bias"]
        seen["probabilities"] = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        return seen
