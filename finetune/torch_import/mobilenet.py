"""MobileNetV2 as torchvision and timm lay it out (Sandler et al. 2018, arXiv:1801.04381)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from finetune.torch_import.building import StateDict

FIRST_STRIDES = (1, 2, 2, 2, 1, 2, 1)
"""Of the first block of each stage."""

REPEATS = (1, 2, 3, 4, 3, 3, 1)
"""Blocks a stage; torchvision counts them through."""


class Names(NamedTuple):
    """What one block's convolutions and BN layers are called; expand: None where there is none."""

    expand: tuple[str, str] | None
    depthwise: tuple[str, str]
    project: tuple[str, str]


def is_torchvision(state: StateDict) -> bool:
    return "features.0.0.weight" in state and "features.1.conv.0.0.weight" in state


def is_timm(state: StateDict) -> bool:
    return "conv_stem.weight" in state and "blocks.0.0.conv_dw.weight" in state


def torchvision_mobilenet(state: StateDict, images: Any) -> Any:
    x = _activated(state, images, "features.0.0", "features.0.1", 2)
    number = 1
    for stage, repeats in enumerate(REPEATS):
        for turn in range(repeats):
            x = _block(state, x, _torchvision_names(state, f"features.{number}.conv"), _stride(stage, turn))
            number += 1
    return _activated(state, x, f"features.{number}.0", f"features.{number}.1")


def timm_mobilenet(state: StateDict, images: Any) -> Any:
    x = _activated(state, images, "conv_stem", "bn1", 2)
    for stage, turn in _timm_blocks(state):
        x = _block(state, x, _timm_names(state, f"blocks.{stage}.{turn}"), _stride(stage, turn))
    return _activated(state, x, "conv_head", "bn2")


def _timm_blocks(state: StateDict) -> Iterator[tuple[int, int]]:
    for stage in range(len(FIRST_STRIDES)):
        turn = 0
        while f"blocks.{stage}.{turn}.conv_dw.weight" in state:
            yield stage, turn
            turn += 1


def _stride(stage: int, turn: int) -> int:
    return FIRST_STRIDES[stage] if turn == 0 else 1


def _torchvision_names(state: StateDict, name: str) -> Names:
    if f"{name}.3.weight" not in state:
        return Names(None, (f"{name}.0.0", f"{name}.0.1"), (f"{name}.1", f"{name}.2"))
    return Names((f"{name}.0.0", f"{name}.0.1"), (f"{name}.1.0", f"{name}.1.1"), (f"{name}.2", f"{name}.3"))


def _timm_names(state: StateDict, name: str) -> Names:
    if f"{name}.conv_pwl.weight" not in state:
        return Names(None, (f"{name}.conv_dw", f"{name}.bn1"), (f"{name}.conv_pw", f"{name}.bn2"))
    return Names(
        (f"{name}.conv_pw", f"{name}.bn1"),
        (f"{name}.conv_dw", f"{name}.bn2"),
        (f"{name}.conv_pwl", f"{name}.bn3"),
    )


def _block(state: StateDict, x: Any, names: Names, stride: int) -> Any:
    from keras import layers

    shortcut = x
    if names.expand:
        x = _activated(state, x, *names.expand)
    x = _activated(state, x, *names.depthwise, stride)
    x = state.normalised(state.convolved(x, names.project[0]), names.project[1])
    if stride == 1 and x.shape[-1] == shortcut.shape[-1]:
        x = layers.Add(name=f"{names.project[0].replace('.', '_')}_add")([x, shortcut])
    return x


def _activated(state: StateDict, x: Any, conv: str, bn: str, stride: int = 1) -> Any:
    from keras import layers

    x = state.normalised(state.convolved(x, conv, stride), bn)
    return layers.ReLU(6.0, name=f"{bn.replace('.', '_')}_relu6")(x)
