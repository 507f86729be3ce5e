"""The convolution in front of a site by the names of its tensors in a graph, to be written anew around the site."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from finetune.batchnorm.producer import convolution_to_use

Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class ConvNames:
    """outputs = x * kernel; added: the bias that is then added, one vector, or None.

    pointwise: whether one position of x makes one of the outputs. Shapes have None for what is open.
    """

    x: str
    kernel: str
    outputs: str
    added: str | None
    pointwise: bool
    x_shape: Shape
    kernel_shape: Shape
    shape: Shape


def names_of_convolution(inputs: Any, name: Callable[[Any], str]) -> ConvNames | None:
    """Of the one whose outputs these inputs of a site are, in the graph that is being traced; see
    finetune.batchnorm.producer.convolution_to_use. name: of a tensor of that graph."""
    behind = convolution_to_use(inputs)
    if behind is None:
        return None
    outputs = behind.operation.outputs[0]
    return ConvNames(
        x=name(behind.x),
        kernel=name(behind.kernel),
        outputs=name(outputs),
        added=None if behind.added is None else name(behind.added),
        pointwise=behind.pointwise,
        x_shape=tuple(behind.x.shape),
        kernel_shape=tuple(behind.kernel.shape),
        shape=tuple(outputs.shape),
    )
