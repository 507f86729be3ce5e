"""What TensorFlow registers for a training step and never forgets: the gradient function of each `tf.custom_gradient`.

A registered function holds the graph that it was traced in, some megabytes a training, for as long as the process
lives. Keras traces two in every `fit`, and sites behind convolutions (sum_kernel.py) one each. The gradient of a
training step is inside the step, and nobody takes another of it; so its functions can go as soon as it is traced.
TensorFlow offers no way to take back what was registered: what is assumed of its registry is in
tests/test_tensorflow_behaviour.py, and where that no longer holds, nothing is forgotten.
"""

from __future__ import annotations

from inspect import getclosurevars
from typing import Any

STEPS = frozenset({"one_step_on_data", "one_step_on_iterator", "multi_step_on_iterator", "one_step_on_next"})
"""Names of the functions that are traced as training steps, by Keras and by finetune.comparison.kept_graphs."""


def forget_gradients_of_steps() -> int:
    """How many were taken out of the registry: all that training steps of this process left there. Functions that a
    network brings with it keep theirs, as somebody may differentiate them."""
    from tensorflow.python.framework.ops import gradient_registry

    entries: dict[str, dict[str, Any]] = getattr(gradient_registry, "_registry", {})
    gone = [
        name
        for name, entry in list(entries.items())
        if name.startswith("CustomGradient-") and _belongs_to_step(entry.get("type"))
    ]
    for name in gone:
        entries.pop(name, None)
    return len(gone)


def _belongs_to_step(registered: Any) -> bool:
    graph = _graph_of(registered)
    # a graph has outputs from the moment on when it is traced to its end
    return getattr(graph, "name", "") in STEPS and getattr(graph, "structured_outputs", None) is not None


def _graph_of(registered: Any) -> Any:
    """In which a gradient function was registered; None where it does not say so in the way it did."""
    import tensorflow as tf

    inner = _held(registered).get("tape_grad_fn")
    results = tf.nest.flatten(_held(inner).get("result"))
    return getattr(results[0], "graph", None) if results else None


def _held(function: Any) -> dict[str, Any]:
    """By name, what a function took from where it was defined."""
    return dict(getclosurevars(function).nonlocals) if hasattr(function, "__closure__") else {}
