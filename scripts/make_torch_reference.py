"""Make `tests/batchnorm/torch_reference.npz`: what PyTorch and fvcore measure at the sites of one small network.

The network is `functional_net` of tests/nets.py without its dropout, which `update_bn` would switch on: a convolution,
a residual join, a dense layer, a site behind each. Weights and images are drawn here, in the layout of Keras, and kept
beside the results of `torch.optim.swa_utils.update_bn` and `fvcore.nn.precise_bn.update_bn_stats`, so that the tests
need neither library.

    uv run --no-project --with torch==2.13.0 --with fvcore==0.1.5.post20221221 --with numpy \
        python scripts/make_torch_reference.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fvcore
import numpy as np
import torch
from fvcore.nn.precise_bn import update_bn_stats
from numpy.typing import NDArray
from torch import nn

REFERENCE = Path(__file__).resolve().parents[1] / "tests" / "batchnorm" / "torch_reference.npz"
SPLITS = {"uneven": (16, 16, 7), "even": (13, 13, 13)}
SIZE, CLASSES, EPSILON = 8, 3, 1e-3
SITES = {"bn_1": 6, "bn_2": 6, "bn_3": 5}

Arrays = dict[str, NDArray[np.float32]]


class Net(nn.Module):
    """`functional_net` in PyTorch's own layout, (batch, channels, height, width)."""

    def __init__(self, weights: Arrays) -> None:
        super().__init__()
        self.conv_1, self.conv_2 = nn.Conv2d(3, 6, 3, bias=False), nn.Conv2d(6, 6, 1)
        self.dense, self.out = nn.Linear(6, 5), nn.Linear(5, CLASSES)
        self.bn_1, self.bn_2 = (nn.BatchNorm2d(SITES[name], eps=EPSILON) for name in ("bn_1", "bn_2"))
        self.bn_3 = nn.BatchNorm1d(SITES["bn_3"], eps=EPSILON)
        self.load_state_dict(state_dict(weights), strict=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        first = torch.relu(self.bn_1(self.conv_1(images)))
        joined = torch.relu(first + self.bn_2(self.conv_2(first)))
        hidden = torch.relu(self.bn_3(self.dense(joined.mean((2, 3)))))
        return torch.softmax(self.out(hidden), -1)


def main() -> None:
    random = np.random.default_rng(20)
    weights, images = draw_weights(random), draw_images(random)
    results: dict[str, Any] = {}
    for split, sizes in SPLITS.items():
        batches = [nchw(batch) for batch in np.split(images, np.cumsum(sizes)[:-1])]
        results |= named(f"update_bn/{split}", measured_by_torch(Net(weights), batches))
        results |= named(f"fvcore/{split}", measured_by_fvcore(Net(weights), batches))
        results[f"sizes/{split}"] = np.array(sizes)
    with torch.no_grad():
        probabilities = Net(weights).eval()(nchw(images)).numpy()
    versions = np.array([f"{m.__name__} {m.__version__}" for m in (torch, fvcore, np)])
    np.savez(
        REFERENCE,
        images=images,
        probabilities=probabilities,
        epsilon=EPSILON,
        versions=versions,
        **named("weights", weights),
        **results,
    )
    print(f"{REFERENCE.name}: {REFERENCE.stat().st_size / 1024:.0f} KiB, {', '.join(versions)}")


def draw_weights(random: np.random.Generator) -> Arrays:
    """In the layout of Keras; statistics, gammas and betas are random, so that no law holds by their symmetry."""
    weights = {
        "conv_1/kernel": random.normal(0, 0.3, (3, 3, 3, 6)),
        "conv_2/kernel": random.normal(0, 0.5, (1, 1, 6, 6)),
        "conv_2/bias": random.normal(0, 0.5, 6),
        "dense/kernel": random.normal(0, 0.7, (6, 5)),
        "dense/bias": random.normal(0, 0.5, 5),
        "out/kernel": random.normal(0, 0.7, (5, CLASSES)),
        "out/bias": random.normal(0, 0.5, CLASSES),
    }
    for name, channels in SITES.items():
        weights |= {
            f"{name}/gamma": random.uniform(0.5, 1.5, channels),
            f"{name}/beta": random.normal(0, 0.5, channels),
            f"{name}/moving_mean": random.normal(0, 0.3, channels),
            f"{name}/moving_variance": random.uniform(0.5, 2.0, channels),
        }
    return {name: value.astype(np.float32) for name, value in weights.items()}


def draw_images(random: np.random.Generator) -> NDArray[np.float32]:
    """They grow brighter and richer in contrast from first to last, so that the batches differ as in a sorted set."""
    count = sum(SPLITS["uneven"])
    along = np.linspace(0, 1, count)[:, None, None, None]
    values = random.normal(0, 1, (count, SIZE, SIZE, 3)) * (1 + along) + 1.5 * along
    return values.astype(np.float32)


def state_dict(weights: Arrays) -> dict[str, torch.Tensor]:
    """Keras' names and layouts to PyTorch's: kernels (h, w, in, out) to (out, in, h, w), (in, out) to (out, in)."""
    theirs = {
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
    }
    state = {}
    for name, value in weights.items():
        layer, kind = name.split("/")
        if kind == "kernel":
            value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
        state[f"{layer}.{theirs.get(kind, 'weight' if kind == 'kernel' else kind)}"] = torch.tensor(value)
    return state


def nchw(images: NDArray[np.float32]) -> torch.Tensor:
    return torch.tensor(images).permute(0, 3, 1, 2)


def measured_by_torch(net: Net, batches: list[torch.Tensor]) -> Arrays:
    torch.optim.swa_utils.update_bn(batches, net)
    return statistics(net)


def measured_by_fvcore(net: Net, batches: list[torch.Tensor]) -> Arrays:
    update_bn_stats(net.train(), batches, num_iters=len(batches))
    return statistics(net)


def statistics(net: Net) -> Arrays:
    sites = {name: net.get_submodule(name) for name in SITES}
    return {f"{name}/mean": site.running_mean.numpy() for name, site in sites.items()} | {
        f"{name}/variance": site.running_var.numpy() for name, site in sites.items()
    }


def named(prefix: str, arrays: Arrays) -> Arrays:
    return {f"{prefix}/{name}": value for name, value in arrays.items()}


if __name__ == "__main__":
    main()
