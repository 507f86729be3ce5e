"""Make `tests/torch_import/reference.npz`: what torchvision and timm compute with weights that anyone can make again.

The weights are drawn anew by `tests/torch_import/drawn.py` from the names and shapes of the tensors, which lie in the
file beside the logarithms of the probabilities of two images at two sizes, an odd one among them. float32, evaluation
mode.

    uv run --no-project --with torch==2.13.0 --with torchvision --with timm python scripts/make_torch_reference.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.torch_import.drawn import images, state_dict  # noqa: E402

NETWORKS: dict[str, Callable[[], torch.nn.Module]] = {
    "torchvision resnet18": torchvision.models.resnet18,
    "torchvision resnet50": torchvision.models.resnet50,
    "torchvision wide_resnet50_2": torchvision.models.wide_resnet50_2,
    "torchvision mobilenet_v2": torchvision.models.mobilenet_v2,
    "timm resnet50": lambda: timm.create_model("resnet50"),
    "timm mobilenetv2_050": lambda: timm.create_model("mobilenetv2_050"),
}


def main() -> None:
    found = {}
    for name, make in NETWORKS.items():
        network = make().eval()
        shapes = {
            key: list(value.shape)
            for key, value in network.state_dict().items()
            if not key.endswith("num_batches_tracked")
        }
        tensors = {key: torch.from_numpy(value) for key, value in state_dict(shapes).items()}
        network.load_state_dict(tensors, strict=False)
        found[f"{name}/shapes"] = np.array(json.dumps(shapes))
        for side in (64, 75):
            with torch.no_grad():
                given = network(torch.from_numpy(images(side).transpose(0, 3, 1, 2)))
            found[f"{name}/{side}"] = torch.log_softmax(given, 1).numpy()
    target = ROOT / "tests" / "torch_import" / "reference.npz"
    np.savez_compressed(target, **found)
    print(
        f"{target.name}: {target.stat().st_size / 1e3:.0f} kB, torch {torch.__version__}, timm {timm.__version__}"
    )


if __name__ == "__main__":
    main()
