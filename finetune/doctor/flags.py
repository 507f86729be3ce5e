"""Settings of a live Keras model that do not do what they look like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import keras
from keras.layers import BatchNormalization

from finetune.batchnorm.naming import some
from finetune.batchnorm.sites import BNSite
from finetune.doctor.finding import Finding

FREEZE = (
    "for site in finetune.batchnorm.sites.find_sites(model, images[:1]): site.freeze()    # before compile"
)


def flags(model: keras.Model, sites: Sequence[BNSite]) -> Iterator[Finding]:
    """sites: all of the model's."""
    yield from _baked(model)
    yield from _frozen_too_late(model)
    yield from _missed(model, sites)
    yield from _shared(sites)
    yield from _never_called(sites)
    yield from _momenta(sites)


def _baked(model: keras.Model) -> Iterator[Finding]:
    """keras#20285: what a functional graph passes on is overridden by whoever calls the model with a flag."""
    baked = {flag: sorted(set(_with_flag(model, flag))) for flag in (True, False)}
    if baked[True]:
        yield Finding(
            "baked-training-true",
            "serious",
            f"training=True is baked into the graph at {some(baked[True])}",
            "model(x) normalises with the batch there and moves the statistics, while predict() does neither: the two "
            "disagree, and a service that calls the model unlearns",
            "rebuild the graph without the flag: x = layer(x)",
            tuple(baked[True]),
        )
    if baked[False]:
        yield Finding(
            "baked-training-false",
            "warning",
            f"training=False is baked into the graph at {some(baked[False])}",
            f"fit overrides it (Keras {keras.__version__}, keras#20285): the statistics move all the same, unless the "
            "sites themselves are frozen",
            FREEZE,
            tuple(baked[False]),
        )


def _with_flag(model: keras.Model, flag: bool) -> Iterator[str]:
    for layer in model._flatten_layers():
        for operation in getattr(layer, "operations", ()) if isinstance(layer, keras.Model) else ():
            nodes = getattr(operation, "_inbound_nodes", ())
            if _holds_site(operation) and any(
                node.arguments.kwargs.get("training") is flag for node in nodes
            ):
                yield operation.name


def _holds_site(operation: object) -> bool:
    inside = operation._flatten_layers() if isinstance(operation, keras.Layer) else ()
    return any(isinstance(layer, BatchNormalization) for layer in inside)


def _frozen_too_late(model: keras.Model) -> Iterator[Finding]:
    """`fit` trains what was trainable when its step was traced, until something traces it anew."""
    optimizer = getattr(model, "optimizer", None)
    if model.train_function is None or optimizer is None or not optimizer.built:
        return
    known = {id(variable) for variable in optimizer._trainable_variables}
    now = {id(variable) for variable in model.trainable_variables}
    if known != now:
        yield Finding(
            "changed-after-compile",
            "serious",
            f"trainable was changed after compile: {len(known - now)} variables were frozen and {len(now - known)} "
            "unfrozen since the training step was traced",
            "fit goes on with the step that it traced: what was frozen still trains, and its statistics still move",
            "model.compile(...)    # again, after every change of trainable",
        )


def _missed(model: keras.Model, sites: Sequence[BNSite]) -> Iterator[Finding]:
    seen = {id(layer) for layer in model.layers}
    missed = [site for site in sites if id(site.layer) not in seen]
    if not missed:
        return
    paths = tuple(site.path for site in missed)
    fooled = any(site.mode == "batch" for site in missed) and any(
        site.mode == "running" for site in sites if id(site.layer) in seen
    )
    yield Finding(
        "missed-by-a-loop",
        "warning" if fooled else "note",
        f"a loop over model.layers finds {len(sites) - len(missed)} of {len(sites)} sites and misses {some(paths)}",
        "those that it finds are frozen, the others follow the batch: the backbone is not frozen"
        if fooled
        else "freezing or measuring in such a loop leaves out the sites inside of nested models and custom layers",
        FREEZE,
        paths,
    )


def _shared(sites: Sequence[BNSite]) -> Iterator[Finding]:
    paths = tuple(site.path for site in sites if site.calls > 1)
    if paths:
        yield Finding(
            "shared-site",
            "note",
            f"{len(paths)} sites are called several times in one pass: {some(paths)}",
            "one set of statistics has to stand for different inputs; fit moves it once a call",
            "finetune recalibrate MODEL --images DIR    # pools all calls; or give each call a layer of its own",
            paths,
        )


def _never_called(sites: Sequence[BNSite]) -> Iterator[Finding]:
    paths = tuple(site.path for site in sites if site.built and not site.calls)
    if paths:
        yield Finding(
            "never-called",
            "warning",
            f"{len(paths)} sites hold statistics that no forward pass reads: {some(paths)}",
            "they are dead weight, or a branch that should be connected is not",
            "model.summary(expand_nested=True)    # see what their inputs were meant to be",
            paths,
        )


def _momenta(sites: Sequence[BNSite]) -> Iterator[Finding]:
    found: dict[float, list[str]] = {}
    for site in sites:
        found.setdefault(site.momentum, []).append(site.path)
    if len(found) > 1:
        rare = min(found, key=lambda momentum: len(found[momentum]))
        counts = ", ".join(f"{momentum:g} at {len(paths)}" for momentum, paths in sorted(found.items()))
        yield Finding(
            "mixed-momentum",
            "warning",
            f"sites have different momenta: {counts} sites",
            "after a short training some statistics are fresh and some are stale; mostly a layer was added with "
            "another default (Keras .99, torch .1 = .9 here)",
            "batchnorm: {policy: retrain, momentum: auto}    # in a recipe: one momentum for all sites",
            tuple(found[rare]),
        )
