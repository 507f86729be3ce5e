"""The PyTorch side of bench_training.py: Keras' ResNet-50 with its weights, in an eager channels-last loop.

The architecture is that of keras.applications (He et al. 2016, arXiv:1512.03385, strides in the first 1 x 1
convolution of a stage, convolutions with biases), so that both sides compute the same function.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

# its LLVM and TensorFlow's crash in one process; an eager loop needs none
sys.modules.setdefault("triton", None)  # type: ignore[arg-type]

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

STAGES = ((2, 3, 1), (3, 4, 2), (4, 6, 2), (5, 3, 2))
"""Number in the layer names, blocks, stride of the first."""
TOLERANCE = 1e-3
"""Largest difference of probabilities between the two libraries before anything is timed."""


def version() -> str:
    return f"torch {torch.__version__} ({torch.get_num_threads()} threads)"


def torch_side(
    policy: str, model: keras.Model, data: list[Any], rate: float, momentum: float
) -> Callable[[], float]:
    """Trains one step on every batch and says the mean loss, under policy retrain or freeze.

    data: batches of (images (batch, size, size, 3) float32, labels (batch,)). Raises SystemExit where the
    outputs differ from Keras'.
    """
    network = ResNet50(model).to(memory_format=torch.channels_last)
    batches = [(channels_last(images), torch.from_numpy(labels)) for images, labels in data]
    compare(network, batches[0][0], model, data[0][0])
    network.train()
    if policy == "freeze":
        freeze(network)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, rate, momentum=momentum)

    def epoch() -> float:
        losses = [step(network, optimizer, images, labels) for images, labels in batches]
        return sum(losses) / len(losses)

    return epoch


def step(network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> float:
    optimizer.zero_grad()
    loss = functional.cross_entropy(network(images), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


def channels_last(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def freeze(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval().requires_grad_(False)


def compare(network: nn.Module, images: Tensor, model: keras.Model, same_images: np.ndarray) -> None:
    """Raise SystemExit where the two networks are not the same function."""
    with torch.no_grad():
        found = network.eval()(images).softmax(1).numpy()
    expected = np.asarray(keras.ops.convert_to_numpy(model(same_images, training=False)))
    difference = np.abs(found - expected).max()
    if not difference <= TOLERANCE:
        raise SystemExit(
            f"the PyTorch side computes something else: probabilities differ by {difference:.2g}"
        )


class Convolution(nn.Sequential):
    """A convolution and the site behind it, from the Keras layers of these names."""

    def __init__(self, model: keras.Model, name: str, stride: int = 1) -> None:
        kernel, bias = (torch.from_numpy(values) for values in model.get_layer(f"{name}_conv").get_weights())
        height, _, inputs, outputs = kernel.shape
        conv = nn.Conv2d(inputs, outputs, height, stride, padding=height // 2)
        conv.weight.data, conv.bias.data = kernel.permute(3, 2, 0, 1).contiguous(), bias
        super().__init__(conv, site(model.get_layer(f"{name}_bn")))


def site(layer: keras.Layer) -> nn.BatchNorm2d:
    # torch's momentum is the share of the new value
    made = nn.BatchNorm2d(layer.moving_mean.shape[0], layer.epsilon, 1 - layer.momentum)
    gamma, beta, mean, variance = (torch.from_numpy(values) for values in layer.get_weights())
    made.weight.data, made.bias.data = gamma, beta
    made.running_mean, made.running_var = mean, variance
    return made


class Block(nn.Module):
    """A bottleneck with its residual join."""

    def __init__(self, model: keras.Model, name: str, stride: int, *, projected: bool) -> None:
        super().__init__()
        self.shortcut = Convolution(model, f"{name}_0", stride) if projected else nn.Identity()
        self.body = nn.Sequential(
            Convolution(model, f"{name}_1", stride),
            nn.ReLU(inplace=True),
            Convolution(model, f"{name}_2"),
            nn.ReLU(inplace=True),
            Convolution(model, f"{name}_3"),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.relu(self.shortcut(inputs) + self.body(inputs), inplace=True)


class ResNet50(nn.Module):
    """keras.applications' ResNet50 with average pooling and a dense head named "head"; the outputs are logits."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        blocks = [
            Block(model, f"conv{number}_block{block + 1}", stride if block == 0 else 1, projected=block == 0)
            for number, count, stride in STAGES
            for block in range(count)
        ]
        kernel, bias = (torch.from_numpy(values) for values in model.get_layer("head").get_weights())
        head = nn.Linear(*kernel.shape)
        head.weight.data, head.bias.data = kernel.T.contiguous(), bias
        self.layers = nn.Sequential(
            Convolution(model, "conv1", 2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
            *blocks,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            head,
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)
