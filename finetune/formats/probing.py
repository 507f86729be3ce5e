"""Where a network normalises with running statistics, found by trying what its variables do, not by names.

A composite BN is a chain y = scale * x + offset. With delta added to one variable,
  the mean           moves the offset by -scale * delta, and leaves the scale;
  the variance       makes the scale go as (variance + epsilon) ** -1/2, with one epsilon for all channels;
  beta, gamma        move the offset by delta, and scale by a factor: they are not needed here.
The site is the *shortest* end of a chain that has a mean and a variance: a convolution's bias in front of it
belongs to its input, and with the bias inside every measured mean would be off by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.formats.affine_chain import MOVING, SCALING, Step, chains_from, scale_and_offset
from finetune.formats.flat_graph import FlatGraph
from finetune.formats.parameter_arithmetic import UnknownOperationError, reads_behind, variable_behind
from finetune.formats.site_call import SiteCall

SMALLEST_EPSILON, LARGEST_EPSILON = 1e-9, 0.5
"""Without an epsilon it is a normalisation of features, such as Keras' Normalization layer."""
TIGHT = 1e-6

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class _Roles:
    """What probing found: the variables of mean and variance, and the shape of the scale."""

    mean: str
    variance: str
    epsilon: float
    shape: tuple[int, ...]


def find_composite(graph: FlatGraph, shapes: Mapping[str, tuple[int, ...]]) -> list[SiteCall]:
    """Every composite BN, in the graph's order. shapes: of the variables, by tensor."""
    taken: set[str] = set()
    found = []
    for name in graph.nodes:
        if name in graph.data and name not in taken and graph.nodes[name].op in (*SCALING, *MOVING):
            site, passed = _site_from(graph, name, shapes)
            taken.update(passed)
            if site is not None:
                found.append(site)
    return found


def _site_from(
    graph: FlatGraph, start: str, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[SiteCall | None, tuple[str, ...]]:
    """The first site of the chain that begins here, and the operations that need no second look."""
    for chain in chains_from(graph, start):
        for first in range(len(chain) - 1, -1, -1):
            end = chain[first:]
            roles = _roles(graph, end, shapes) if end[0].parameter is not None else None
            if roles is not None:
                return _site(graph, end, roles), tuple(step.name for step in chain)
    return None, ()


def _site(graph: FlatGraph, chain: tuple[Step, ...], roles: _Roles) -> SiteCall:
    wide = [axis - len(roles.shape) for axis, size in enumerate(roles.shape) if size > 1]
    return SiteCall(
        inputs=chain[0].data,
        mean=roles.mean,
        variance=roles.variance,
        epsilon=roles.epsilon,
        channels=int(np.prod(roles.shape)),
        axes=tuple(wide),
        operations=tuple(step.name for step in chain),
    )


def _roles(graph: FlatGraph, chain: tuple[Step, ...], shapes: Mapping[str, tuple[int, ...]]) -> _Roles | None:
    reads = {
        read: variable_behind(graph, read)
        for step in chain
        if step.parameter is not None
        for read in reads_behind(graph, step.parameter)
    }
    known = {variable: shapes.get(variable) for variable in reads.values()}
    if len(known) < 2 or any(shape is None for shape in known.values()):
        return None
    try:
        with np.errstate(all="ignore"):
            return _Probe(graph, chain, reads, _arbitrary(known)).roles()
    except (UnknownOperationError, ValueError, TypeError):
        return None


def _arbitrary(shapes: Mapping[str, tuple[int, ...] | None]) -> dict[str, Float64]:
    """Values in general position: in those stored, a gamma of zero would hide what its site does."""
    random = np.random.default_rng(0)
    return {variable: random.uniform(0.5, 1.5, shape or ()) for variable, shape in shapes.items()}


class _Probe:
    """One chain with arbitrary values in its variables, and what it becomes when one of them moves.

    reads: each read -> its variable, of which a network may have several reads.
    """

    def __init__(
        self,
        graph: FlatGraph,
        chain: tuple[Step, ...],
        reads: Mapping[str, str],
        values: dict[str, Float64],
    ) -> None:
        self.graph, self.chain, self.reads, self.values = graph, chain, reads, values
        scale, offset = self._with(values)
        self.shape = np.broadcast_shapes(np.shape(scale), np.shape(offset))
        self.scale, self.offset = np.broadcast_to(scale, self.shape), np.broadcast_to(offset, self.shape)

    def roles(self) -> _Roles | None:
        mean = variance = None
        epsilon = 0.0
        for name, value in self.values.items():
            if value.size != int(np.prod(self.shape)):
                continue
            if self._is_bias(name):
                return None
            if self._is_mean(name):
                mean = name if mean is None else None
            found = self._epsilon(name)
            if found is not None:
                variance, epsilon = name, found
        if mean is None or variance is None:
            return None
        return _Roles(mean, variance, epsilon, self.shape)

    def _with(self, values: Mapping[str, Float64]) -> tuple[Any, Any]:
        return scale_and_offset(
            self.graph, self.chain, {read: values[variable] for read, variable in self.reads.items()}
        )

    def _moved(self, name: str, step: float) -> tuple[Float64, Float64]:
        scale, offset = self._with({**self.values, name: self.values[name] + step})
        return np.broadcast_to(scale, self.shape), np.broadcast_to(offset, self.shape)

    def _moves_offset(self, name: str, factor: float) -> bool:
        """Whether it leaves the scale and moves the offset by scale * factor for every one that it moves."""
        scale, offset = self._moved(name, 0.37)
        return np.array_equal(scale, self.scale) and np.allclose(
            offset - self.offset, factor * 0.37 * self.scale, rtol=TIGHT, atol=1e-12
        )

    def _is_mean(self, name: str) -> bool:
        return self._moves_offset(name, -1)

    def _is_bias(self, name: str) -> bool:
        """A bias that was folded into the offset: what the site normalises is then not in the graph."""
        return self._moves_offset(name, 1) and not np.allclose(self.scale, 1)

    def _epsilon(self, name: str) -> float | None:
        """Of scale ~ (value + epsilon) ** -1/2; None where it goes otherwise."""
        found = [self._epsilon_by(name, step) for step in (0.37, 0.81)]
        one = float(np.median(found[0]))
        same = all(np.all(np.abs(epsilon - one) < TIGHT) for epsilon in found)
        return one if same and SMALLEST_EPSILON < one < LARGEST_EPSILON else None

    def _epsilon_by(self, name: str, step: float) -> Any:
        value = np.reshape(self.values[name], self.shape)
        ratio = (self._moved(name, step)[0] / self.scale) ** 2
        return (ratio * (value + step) - value) / (1 - ratio)
