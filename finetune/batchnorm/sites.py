"""BN sites of a live Keras model: finding, reading, freezing them. All Keras mechanics of BN are in this file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import ops
from keras.layers import BatchNormalization
from numpy.typing import NDArray

from finetune.batchnorm.eager import functions_run_eagerly
from finetune.batchnorm.moments import RunningStatistics

SiteCall = Callable[..., Any]
"""Stands in for a site's `call(inputs, training=None, mask=None)`."""


@dataclass(frozen=True, eq=False)
class BNSite:
    """One BatchNormalization layer at one path; a shared layer is one site, called several times.

    index: place in call order, from 0. path: names from the model down, "resnet/conv2_block1_bn".
    calls: how often one forward pass calls it; 0 is never. positions: values behind one channel for
    one image, over all calls (height x width of its input); fewest_positions: of the call that has fewest,
    since every call normalises by itself.
    """

    layer: BatchNormalization
    path: str
    index: int
    calls: int
    positions: int
    fewest_positions: int

    @property
    def built(self) -> bool:
        """Some backbones create layers that they never call: those hold no statistics."""
        return self.layer.moving_mean is not None

    @property
    def channels(self) -> int:
        return int(self.layer.moving_mean.shape[0]) if self.built else 0

    @property
    def epsilon(self) -> float:
        return float(self.layer.epsilon)

    @property
    def momentum(self) -> float:
        return float(self.layer.momentum)

    @property
    def statistics(self) -> RunningStatistics:
        """A copy of the running statistics."""
        return RunningStatistics(_copy(self.layer.moving_mean), _copy(self.layer.moving_variance))

    def store(self, values: RunningStatistics) -> None:
        """Put running statistics in force, rounded to the site's own dtype."""
        self.layer.moving_mean.assign(ops.cast(values.mean, self.layer.moving_mean.dtype))
        self.layer.moving_variance.assign(ops.cast(values.variance, self.layer.moving_variance.dtype))

    @property
    def affine(self) -> tuple[NDArray[np.floating], ...]:
        """Copies of gamma and beta, those that the site has."""
        return tuple(_copy(variable) for variable in self._affine_variables)

    @property
    def mode(self) -> Literal["batch", "running"]:
        """What `fit` normalises with from the next compile on: the moments of the batch, which the running
        statistics then follow, or the running statistics, which stay.

        The one place that knows: it is read off the layer, where Keras reads it when it traces the train function.
        """
        return "batch" if self.layer.trainable else "running"

    @property
    def affine_trains(self) -> bool:
        """Whether gamma or beta train from the next compile on, in either mode."""
        return any(variable.trainable for variable in self._affine_variables)

    def freeze(self) -> None:
        """Normalise with the running statistics and keep them, gamma and beta as they are, from the next compile on.

        Not by calling the model with training=False: `fit` overrides that flag in functional models
        and the statistics move all the same (keras#20285).
        """
        self._set(follows=False, affine_trains=False)

    def hold(self) -> None:
        """Normalise with the running statistics and keep them while gamma and beta train, from the next compile on.

        A frozen layer normalises so, and `fit` trains every variable whose own flag says so, whatever the
        flag of the layer around it says.
        """
        self._set(follows=False, affine_trains=True)

    def follow(self, momentum: float | None, *, affine_trains: bool = True) -> None:
        """Normalise with the batch and let the running statistics follow, from the next compile on.

        Keras' momentum: the share of the old value that is kept. None leaves the site's own. It must be a
        plain float: a variable saves, and can then not be loaded.
        """
        self._set(follows=True, affine_trains=affine_trains)
        if momentum is not None:
            self.layer.momentum = float(momentum)

    def _set(self, *, follows: bool, affine_trains: bool) -> None:
        self.layer.trainable = follows
        # after the layer's flag, which sets them too, but not where it has that value already
        for variable in self._affine_variables:
            variable.trainable = affine_trains

    @property
    def _affine_variables(self) -> list[Any]:
        return [v for v in (self.layer.gamma, self.layer.beta) if v is not None]


def _copy(variable: Any) -> NDArray[np.floating]:
    return np.array(ops.convert_to_numpy(variable))


def find_sites(model: keras.Model, image: Any) -> tuple[BNSite, ...]:
    """Every BN site, those that a forward pass reaches first and in call order.

    image: one example of the model's input, (1, ...); it is run once in inference mode.
    """
    paths = dict(_layer_paths(model))
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, BatchNormalization)]
    calls = _traced_calls(model, layers, image)
    order = {id(layer): place for place, layer in reversed(list(enumerate(layer for layer, _ in calls)))}
    found = sorted(layers, key=lambda layer: (id(layer) not in order, order.get(id(layer), 0)))
    positions = [[number for called, number in calls if called is layer] for layer in found]
    return tuple(
        BNSite(
            layer=layer,
            path=paths[id(layer)],
            index=index,
            calls=len(positions[index]),
            positions=sum(positions[index]),
            fewest_positions=min(positions[index], default=0),
        )
        for index, layer in enumerate(found)
    )


def _layer_paths(parent: keras.Layer, prefix: str = "") -> Iterator[tuple[int, str]]:
    """(id, path) of every layer below; Keras' own `layer.path` is None before a layer is built, and not unique."""
    taken: dict[str, int] = {}
    for child in parent._flatten_layers(include_self=False, recursive=False):
        taken[child.name] = taken.get(child.name, 0) + 1
        path = prefix + child.name + (f"#{taken[child.name]}" if taken[child.name] > 1 else "")
        yield id(child), path
        yield from _layer_paths(child, path + "/")


def _traced_calls(
    model: keras.Model, layers: Sequence[BatchNormalization], image: Any
) -> list[tuple[BatchNormalization, int]]:
    calls: list[tuple[BatchNormalization, int]] = []

    def noting(layer: BatchNormalization, original: SiteCall) -> SiteCall:
        def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
            calls.append((layer, int(np.prod(inputs.shape)) // int(inputs.shape[layer.axis])))
            return original(inputs, training=training, mask=mask)

        return call

    with replaced_calls(layers, noting), functions_run_eagerly():
        model(image, training=False)
    return calls


@contextmanager
def replaced_calls(
    layers: Sequence[BatchNormalization], replacement: Callable[[BatchNormalization, SiteCall], SiteCall]
) -> Iterator[None]:
    """Let each layer be called through `replacement(layer, original call)` inside the block.

    The one way that sees the input of every site in functional, nested, custom-layer and subclassed
    models alike; whatever a `tf.function` traced inside the block keeps the replacement. Blocks nest: each
    gives back the call that it found.
    """
    found = [vars(layer).get("call") for layer in layers]
    try:
        for layer in layers:
            layer.call = replacement(layer, layer.call)
        yield
    finally:
        for layer, call in zip(layers, found, strict=True):
            if call is not None:
                layer.call = call
            elif "call" in vars(layer):
                del layer.call


@contextmanager
def synchronised(sites: Sequence[BNSite]) -> Iterator[None]:
    """Let the sites normalise with the batches of all replicas together inside the block, from the next compile on.

    Otherwise each replica of a tf.distribute strategy keeps running statistics of its own, and what is saved are those
    of the first. The flag is given back: not every backend loads a model that has it.
    """
    before = [site.layer.synchronized for site in sites]
    try:
        for site in sites:
            site.layer.synchronized = True
        yield
    finally:
        for site, flag in zip(sites, before, strict=True):
            site.layer.synchronized = flag


@contextmanager
def restored_settings(sites: Sequence[BNSite]) -> Iterator[None]:
    """Give every site the momentum back that it had before the block, and let the flags of gamma and beta
    agree with their layer's again, as they do in every model that Keras loads."""
    before = [site.layer.momentum for site in sites]
    try:
        yield
    finally:
        for site, momentum in zip(sites, before, strict=True):
            site.layer.momentum = momentum
            site._set(follows=site.layer.trainable, affine_trains=site.layer.trainable)
