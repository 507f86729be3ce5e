"""Whether running statistics, gamma and beta stayed or moved as was promised, site by site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from finetune.batchnorm.naming import named
from finetune.batchnorm.promise import Promise
from finetune.batchnorm.timeline import Reading, Timeline
from finetune.result import Check


def statistics_kept(promises: Mapping[str, Promise], timeline: Timeline) -> tuple[Check, ...]:
    """Whether the running statistics stayed or moved as is promised at each site."""
    t = timeline
    fixed, measured, follow = (
        frozenset(path for path, promise in promises.items() if promise.statistics == kind)
        for kind in ("fixed", "measured", "follow")
    )
    checks = (
        _unmoved("running statistics are fixed", t.pretrained, t.finished, fixed, "the pretrained ones"),
        _unmoved("measured statistics are fixed", t.started, t.finished, measured, "the measured ones"),
        _followed(t, follow) if follow else None,
        _unmoved(
            "statistics of untrained sites are fixed",
            t.started,
            t.trained,
            follow - t.trained_sites,
            "those before training",
        ),
        _held(t, frozenset(path for path in follow if promises[path].frozen_epochs)),
    )
    return tuple(check for check in checks if check)


def _followed(timeline: Timeline, follow: frozenset[str]) -> Check:
    """A model whose `call` takes no `training` argument trains in inference mode: nothing follows then."""
    trained = follow & timeline.trained_sites
    stuck = trained - set(_moved(timeline.started, timeline.trained))
    detail = f"{len(trained) - len(stuck)} of {len(trained)} trained sites moved"
    return Check("running statistics follow", not stuck, detail + named(stuck))


def _held(timeline: Timeline, paths: frozenset[str]) -> Check | None:
    """Frozen epochs at the end were trained, and did not move the statistics they began with."""
    name = "running statistics stay through the last epochs"
    if timeline.held is None:
        return Check(name, False, "NOT frozen: no epochs were frozen at the end") if paths else None
    return _unmoved(name, timeline.held, timeline.finished, paths, "those before these epochs")


def affine_kept(promises: Mapping[str, Promise], timeline: Timeline) -> tuple[Check, ...]:
    """gamma and beta: bit-identical where they are fixed; where they train, they did, and only in the trained sites."""
    fixed = frozenset(path for path, promise in promises.items() if promise.affine == "fixed")
    outside = promises.keys() - fixed - timeline.trained_sites
    affine = {reading.path for reading in timeline.pretrained if reading.affine}
    inside = (timeline.trained_sites & affine) - fixed
    changed = {
        before.path
        for before, after in zip(timeline.pretrained, timeline.finished, strict=True)
        if any(a.tobytes() != b.tobytes() for a, b in zip(before.affine, after.affine, strict=True))
    }
    reference = "the pretrained ones"
    checks = (
        _identical("gamma and beta are fixed", changed & fixed, len(fixed), reference),
        _identical("gamma and beta of untrained sites are fixed", changed & outside, len(outside), reference),
        _trained(inside, changed),
    )
    return tuple(check for check in checks if check)


def _trained(inside: frozenset[str], changed: set[str]) -> Check | None:
    """One site that moved is enough: the gradient of a dead one is 0."""
    if not inside:
        return None
    detail = f"{len(inside & changed)} of {len(inside)} trained sites moved"
    return Check("gamma and beta train", bool(inside & changed), detail + named(inside - changed))


def _moved(before: Sequence[Reading], after: Sequence[Reading]) -> list[str]:
    return [
        earlier.path
        for earlier, later in zip(before, after, strict=True)
        if not earlier.statistics.identical(later.statistics)
    ]


def _unmoved(
    name: str, before: Sequence[Reading], after: Sequence[Reading], paths: frozenset[str], reference: str
) -> Check | None:
    """That the running statistics of these sites are the same in both readings; nothing where there is no site."""
    return _identical(name, paths & set(_moved(before, after)), len(paths), reference)


def _identical(name: str, moved: Set[str], count: int, reference: str) -> Check | None:
    if not count:
        return None
    if not moved:
        return Check(name, True, f"{count} of {count} sites bit-identical to {reference}")
    return Check(
        name, False, f"NOT frozen: {len(moved)} of {count} sites differ from {reference}" + named(moved)
    )
