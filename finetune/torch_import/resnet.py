"""ResNet as torchvision and timm lay it out (He et al. 2015, arXiv:1512.03385; stride in the 3 x 3 convolution)."""

from __future__ import annotations

from typing import Any

from finetune.torch_import.building import StateDict


def is_resnet(state: StateDict) -> bool:
    return "layer1.0.conv1.weight" in state and "conv1.weight" in state


def resnet(state: StateDict, images: Any) -> Any:
    """Features (batch, h, w, channels) of scaled images; as many stages and blocks as the state dict has."""
    from keras import layers

    x = layers.ReLU(name="relu")(state.normalised(state.convolved(images, "conv1", 2), "bn1"))
    # the values are none below 0, so that zeros around them are no maximum
    x = layers.MaxPooling2D(3, 2, name="maxpool")(layers.ZeroPadding2D(1, name="maxpool_pad")(x))
    stage = 1
    while f"layer{stage}.0.conv1.weight" in state:
        block = 0
        while f"layer{stage}.{block}.conv1.weight" in state:
            x = _block(state, x, f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1)
            block += 1
        stage += 1
    return x


def _block(state: StateDict, x: Any, name: str, stride: int) -> Any:
    from keras import layers

    # two convolutions, or three of which the second one has the stride
    bottleneck = f"{name}.conv3.weight" in state
    strides = (1, stride, 1) if bottleneck else (stride, 1)
    shortcut, path = x, name.replace(".", "_")
    for place, each in enumerate(strides, 1):
        x = state.normalised(state.convolved(x, f"{name}.conv{place}", each), f"{name}.bn{place}")
        if place < len(strides):
            x = layers.ReLU(name=f"{path}_relu{place}")(x)
    if f"{name}.downsample.0.weight" in state:
        shortcut = state.convolved(shortcut, f"{name}.downsample.0", stride)
        shortcut = state.normalised(shortcut, f"{name}.downsample.1")
    return layers.ReLU(name=f"{path}_relu")(layers.Add(name=f"{path}_add")([x, shortcut]))
