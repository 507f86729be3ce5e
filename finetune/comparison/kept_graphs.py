"""A network whose steps are traced once for all cells of a process that compile it alike.

To trace a step takes longer than to train an epoch of a few hundred images. The graph of a step depends on what trains,
on the momentum of the sites and on the optimizer, and on no value of any variable: run on the variables of the next
cell, it is that cell's own.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from finetune.comparison.graph_kind import graph_kind
from finetune.recipe import Recipe

RATES = ("initial_learning_rate", "warmup_target", "end_learning_rate")
"""Learning rates of a schedule, which Keras writes into the graph as constants."""

MOST = 32
"""Graphs that a network keeps; a grid of four policies has some twenty."""

HOLDS_PYTHON = ("PyFunc", "PyFuncStateless", "EagerPyFunc")
"""Operations that call back into objects of the cell that they were traced in."""

Step = Callable[[Any], Any]


@dataclass(eq=False)
class Graph:
    """A traced step. places: of the variables that it reads and writes, among those that it is given. alive: those that
    it was given last; TensorFlow's function keeps none of them from being deleted."""

    concrete: Any
    places: Sequence[int]
    alive: Sequence[keras.Variable] = ()

    def on(self, variables: Sequence[keras.Variable]) -> Step:
        """The step on these variables, until it is put on others."""
        self.alive = [variables[place] for place in self.places]
        self.concrete.set_external_captures([_handle(variable) for variable in self.alive])
        step: Step = self.concrete
        return step


class KeepsGraphs(keras.Model):
    """The layers and variables of another model, trained, evaluated and asked through steps that outlive a compile.

    A step is Keras' own, and is traced anew wherever anything that it was traced under is another now: what trains, the
    momentum of a site, a borrowed call, the optimizer but for its learning rate, the recipe but for its seed and its
    camera. One that drew random numbers while it was traced, or does so by itself, belongs to its seed and is not kept.
    On accelerators, where Keras compiles steps by XLA, all is as in any model.
    """

    train_function: Step | None
    test_function: Step | None
    predict_function: Step | None

    def __init__(self, model: keras.Model) -> None:
        super().__init__(inputs=model.input, outputs=model.output, name=model.name)
        self.kept_graphs: dict[Any, Any] = {}
        self._recipe = ""

    def trained_under(self, recipe: Recipe) -> None:
        """To be called before every cell."""
        self._recipe = graph_kind(recipe)

    def make_train_function(self, force: bool = False) -> None:
        if self.jit_compile:
            super().make_train_function(force)
        elif force or self.train_function is None:
            self.train_function = self._stepping("train", self.train_step)

    def make_test_function(self, force: bool = False) -> None:
        if self.jit_compile:
            super().make_test_function(force)
        elif force or self.test_function is None:
            self.test_function = self._stepping("test", self.test_step)

    def make_predict_function(self, force: bool = False) -> None:
        if self.jit_compile:
            super().make_predict_function(force)
        elif force or self.predict_function is None:
            self.predict_function = self._predicting()

    def _stepping(self, kind: str, step: Step) -> Step:
        """Of batches as an iterator: one step on the next of them."""
        ready: dict[str, Step] = {}

        def one_step_on_next(batches: Any) -> Any:
            return step(next(batches))

        def function(batches: Any) -> Any:
            spec = str(batches.element_spec)
            if spec not in ready:
                ready[spec] = self._step(f"{kind} {spec}", one_step_on_next, batches)
            return ready[spec](batches)

        return function

    def _predicting(self) -> Step:
        """Of a list of one batch of images: traced once for batches of any size."""
        ready: dict[str, Step] = {}

        def function(batches: Any) -> Any:
            [batch] = batches
            # `predict_on_batch` hands them on in a tuple
            images = batch[0] if isinstance(batch, tuple) else batch
            spec = tf.TensorSpec([None, *images.shape[1:]], images.dtype)
            if str(spec) not in ready:
                ready[str(spec)] = self._step(f"predict {spec}", self.predict_step, spec)
            return ready[str(spec)](images)

        return function

    def _step(self, kind: str, step: Step, argument: Any) -> Step:
        rates = _rates(self.optimizer)
        variables = [*_variables(self), *rates.values()]
        situation = (kind, self._situation(), _shapes(variables))
        if situation not in self.kept_graphs:
            with _scheduled(self.optimizer, rates):
                concrete, repeats = _traced(step, argument)
            places = _places(concrete, variables) if repeats else None
            if places is None:
                own: Step = concrete
                return own
            if len(self.kept_graphs) >= MOST:
                del self.kept_graphs[next(iter(self.kept_graphs))]
            self.kept_graphs[situation] = Graph(concrete, places)
        graph: Graph = self.kept_graphs[situation]
        return graph.on(variables)

    def _situation(self) -> str:
        """All that Keras reads when it traces a step, but for values of variables."""
        layers = [
            (layer.trainable, getattr(layer, "momentum", None), "call" in vars(layer))
            for layer in self._flatten_layers()
        ]
        trains = [variable.trainable for variable in self.variables]
        return json.dumps([self._recipe, layers, trains, _described(self.optimizer)], default=str)


def _variables(model: keras.Model) -> list[keras.Variable]:
    """Of the network, the optimizer and the metrics, always in the same order."""
    of_optimizer = model.optimizer.variables if model.optimizer else []
    return [*model.variables, *of_optimizer, *model.metrics_variables]


def _described(optimizer: keras.optimizers.Optimizer | None) -> dict[str, Any]:
    """Its configuration without learning rates, and without the name, which Keras numbers."""
    if optimizer is None:
        return {}
    plain = dict(optimizer.get_config())
    del plain["name"]
    schedule = plain.pop("learning_rate")
    if isinstance(schedule, dict):
        settings = {key: value for key, value in schedule["config"].items() if key not in RATES}
        plain["schedule"] = [schedule["class_name"], settings, sorted(_rates(optimizer))]
    return plain


def _rates(optimizer: keras.optimizers.Optimizer | None) -> dict[str, keras.Variable]:
    """The learning rates of its schedule, each as a variable; without a schedule it has a variable of its own."""
    schedule = getattr(optimizer, "_learning_rate", None)
    return {
        name: keras.Variable(value, trainable=False, dtype="float32", name=name)
        for name in RATES
        if isinstance(value := getattr(schedule, name, None), float)
    }


@contextmanager
def _scheduled(
    optimizer: keras.optimizers.Optimizer | None, rates: Mapping[str, keras.Variable]
) -> Iterator[None]:
    """Inside the block the schedule takes its learning rates from variables."""
    schedule = getattr(optimizer, "_learning_rate", None)
    before = {name: getattr(schedule, name) for name in rates}
    try:
        for name, variable in rates.items():
            setattr(schedule, name, variable)
        yield
    finally:
        for name, value in before.items():
            setattr(schedule, name, value)


def _shapes(variables: Sequence[keras.Variable]) -> str:
    return str([(tuple(variable.shape), variable.dtype) for variable in variables])


def _handle(variable: keras.Variable) -> Any:
    return variable.value.handle


def _traced(step: Step, argument: Any) -> tuple[Any, bool]:
    """A concrete function, and whether tracing it once more would give the same."""
    before = _drawn_so_far()
    concrete = tf.function(step, autograph=False).get_concrete_function(argument)
    definition = concrete.graph.as_graph_def()
    nodes = [*definition.node, *(node for f in definition.library.function for node in f.node_def)]
    alone = all("seed2" not in node.attr and node.op not in HOLDS_PYTHON for node in nodes)
    return concrete, alone and before == _drawn_so_far()


def _drawn_so_far() -> tuple[Any, str]:
    """Keras takes the seeds that nobody gave it from Python's random numbers, some layers from NumPy's."""
    return random.getstate(), str(np.random.get_state())


def _places(concrete: Any, variables: Sequence[keras.Variable]) -> list[int] | None:
    """Which variables it captured, in its own order; None where it captured anything else."""
    known = {id(_handle(variable)): place for place, variable in enumerate(variables)}
    found = [known.get(id(captured)) for captured in concrete.captured_inputs]
    return None if None in found else [place for place in found if place is not None]
