"""In which order the sites of a network can be measured exactly, and where to cut it for that.

A site can be measured once every site that its input depends on has its final statistics. Sites that do not
depend on each other form one stage. Between two stages the network is cut: the tensors that cross the cut
are kept for every image, so that each operation runs once for an image, not once for every site behind it.

Knows names of tensors only: whoever has a graph (a traced Keras model, a SavedModel, an ONNX file) states it
as a `Dataflow`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Groups = frozenset[int]


@dataclass(frozen=True)
class Operation:
    """inputs, outputs: names of tensors. statistics: sites whose running statistics it reads directly."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    statistics: Groups


@dataclass(frozen=True)
class Dataflow:
    """A network as a list of operations in an order in which they can run.

    inputs: the tensors that are fed. measured: per site, the tensors that its moments are taken from: one or
    more for every call, as a shared site has several.
    """

    operations: Sequence[Operation]
    inputs: tuple[str, ...]
    measured: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Stage:
    """One cut.

    sites: measured here, in one run over the images. loops: sites that feed themselves, alone or in a circle,
    which are measured again and again until they stay. feeds: the tensors kept by the stage before.
    keeps: the tensors that later stages, and the loops of this one, need.
    """

    sites: tuple[int, ...]
    loops: tuple[tuple[int, ...], ...]
    feeds: tuple[str, ...]
    keeps: tuple[str, ...]


def plan(flow: Dataflow) -> tuple[Stage, ...]:
    """The stages in order. Together they measure every site exactly once, or in one loop."""
    behind = _sites_behind(flow)
    needs = [_union(behind.get(t, Groups()) for t in tensors) for tensors in flow.measured]
    reach = _closure(needs)
    number = _stage_numbers(needs, reach)
    level = {tensor: max((number[s] for s in sites), default=0) for tensor, sites in behind.items()}
    wanted = _needed(flow)
    stages, feeds = [], flow.inputs
    for now in range(1, max(number, default=0) + 1):
        here = [site for site, stage in enumerate(number) if stage == now]
        loops = tuple(
            dict.fromkeys(tuple(sorted(_circle(site, reach))) for site in here if site in reach[site])
        )
        alone = tuple(site for site in here if site not in reach[site])
        keeps = _crossing(flow, wanted, level, number, now)
        stages.append(Stage(alone, loops, feeds, keeps))
        feeds = keeps
    return tuple(stages)


def _union(sets: Iterable[Groups]) -> Groups:
    return Groups().union(*sets)


def _sites_behind(flow: Dataflow) -> dict[str, Groups]:
    """Per tensor that depends on the images: the sites whose statistics it depends on through any path."""
    behind: dict[str, Groups] = {tensor: Groups() for tensor in flow.inputs}
    constant: dict[str, Groups] = {}
    for operation in flow.operations:
        read = operation.statistics | _union(constant.get(t, Groups()) for t in operation.inputs)
        depends = [behind[t] for t in operation.inputs if t in behind]
        target = behind if depends else constant
        for tensor in operation.outputs:
            target[tensor] = read.union(*depends)
    return behind


def _closure(needs: Sequence[Groups]) -> list[Groups]:
    """Per site: all sites that must be known before it, those behind other calls of a shared site included."""
    reach = list(needs)
    changed = True
    while changed:
        changed = False
        for site, known in enumerate(reach):
            wider = known.union(*(reach[other] for other in known))
            if wider != known:
                reach[site], changed = wider, True
    return reach


def _circle(site: int, reach: Sequence[Groups]) -> Groups:
    """The sites that depend on this one and on which it depends: itself alone where there is no loop."""
    return Groups({site} | {other for other in reach[site] if site in reach[other]})


def _stage_numbers(needs: Sequence[Groups], reach: Sequence[Groups]) -> list[int]:
    """Stage per site, from 1: one more than the latest site that it waits for outside of its own circle."""
    number: dict[int, int] = {}
    # whoever waits for fewer sites comes first, so that those are numbered when they are asked for
    for site in sorted(range(len(needs)), key=lambda s: len(reach[s] | {s})):
        circle = _circle(site, reach)
        before = max((number[other] for other in reach[site] - circle), default=0)
        number[site] = 1 + before
    return [number[site] for site in range(len(needs))]


def _crossing(
    flow: Dataflow, wanted: set[str], level: Mapping[str, int], number: Sequence[int], now: int
) -> tuple[str, ...]:
    """The tensors known before stage `now` that something known only with it uses, or that are measured in it or later.

    Those measured in this very stage stay for a second look: in a loop, or in float64.
    """
    keeps: dict[str, None] = {}
    for operation in flow.operations:
        late = any(level.get(t, -1) >= now and t in wanted for t in operation.outputs)
        if late:
            keeps.update((t, None) for t in operation.inputs if level.get(t, now) < now)
    for site, tensors in enumerate(flow.measured):
        if number[site] >= now:
            keeps.update((t, None) for t in tensors if level[t] < now)
    return tuple(keeps)


def _needed(flow: Dataflow) -> set[str]:
    """Every tensor that some measured tensor depends on: what lies behind the last site never runs."""
    wanted = {tensor for tensors in flow.measured for tensor in tensors}
    for operation in reversed(flow.operations):
        if any(tensor in wanted for tensor in operation.outputs):
            wanted.update(operation.inputs)
    return wanted
