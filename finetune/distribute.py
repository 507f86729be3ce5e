"""The recipe key `distribute`: on which devices, or with which other processes, a training shares its batches."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from finetune.component import Component

DEVICE = re.compile(r"(CPU|GPU|TPU):\d+")


class Distribute(Component):
    """Every replica trains on its share of each batch, with gradients and batch statistics of the whole batch."""

    strategy: Literal["mirrored", "multi_worker", "data_parallel"] = Field(
        description="mirrored: devices of this machine, data_parallel under KERAS_BACKEND=jax; multi_worker: the "
        "processes that TF_CONFIG lists"
    )
    devices: tuple[str, ...] | None = Field(
        None, min_length=1, description="of this machine, as GPU:0; all accelerators where left out"
    )

    @model_validator(mode="after")
    def _devices_can_be_meant(self) -> Self:
        if self.devices is None:
            return self
        if self.strategy == "multi_worker":
            raise PydanticCustomError(
                "unused_key",
                "multi_worker takes none: a worker takes the one that it sees (CUDA_VISIBLE_DEVICES); leave it out",
                {"at": ("devices",)},
            )
        odd = [name for name in self.devices if not DEVICE.fullmatch(name)]
        if odd or len(set(self.devices)) < len(self.devices):
            raise PydanticCustomError(
                "devices",
                "expected different devices as GPU:0 and GPU:1, got {devices}",
                {"at": ("devices",), "devices": ", ".join(self.devices)},
            )
        return self
