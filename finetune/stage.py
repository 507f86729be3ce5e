"""A stage: a stretch of training at one setting."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from finetune.component import Component

SGD_MOMENTUM = 0.9


class FromLayer(Component):
    """Train the head and, of the backbone, this layer and everything after it in call order."""

    layer: str = Field(alias="from", min_length=1, description="path of a backbone layer")


def _form(train: Any) -> str:
    return "layer" if isinstance(train, dict | FromLayer) else "part"


Trained = Annotated[
    Annotated[Literal["head", "everything"], Tag("part")] | Annotated[FromLayer, Tag("layer")],
    Discriminator(_form),
]


BatchSize = Annotated[int, Field(ge=1)]


def _number_or_list(size: Any) -> str:
    return "list" if isinstance(size, list | tuple) else "number"


BatchSizes = Annotated[
    Annotated[BatchSize, Tag("number")] | Annotated[tuple[BatchSize, ...], Field(min_length=1), Tag("list")],
    Discriminator(_number_or_list),
]


class Stage(Component):
    """What is trained, for how long and how fast."""

    train: Trained = Field(description="head, everything, or {from: LAYER}")
    epochs: int = Field(ge=1, description="passes over the training split")
    learning_rate: float = Field(gt=0, description="the peak, reached after the warm-up")
    rate_at_first_layer: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the learning rate that the backbone's first layer gets; from there to the head, which has"
        " all of it, it grows by equal factors (not that of weight_decay)",
    )
    batch_size: BatchSizes | None = Field(
        None,
        description="images a training step; a list has one entry an epoch, and the last one stays;"
        " data.batch_size where left out",
    )
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="how the rate goes on after the warm-up"
    )
    warmup: float = Field(
        0.1, ge=0, le=1, description="share of the stage's steps in which the rate rises from 0"
    )
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    momentum: float = Field(SGD_MOMENTUM, ge=0, lt=1, description="of sgd; not the momentum of a BN site")
    weight_decay: float = Field(0.0, ge=0, description="decoupled from the gradient, as in AdamW")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of every training label that is spread over all classes alike"
    )
    early_stopping: int | None = Field(
        None, ge=1, description="stop after this many epochs without a lower validation loss"
    )
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of the old value in a moving average of the weights, step by step; the stage ends with the"
        " average, under running statistics measured for it, if its validation loss is not higher",
    )
    accumulate: int = Field(
        1,
        ge=1,
        description="batches whose gradients are averaged for one step of the optimizer; a BN site still sees one batch"
        " at a time",
    )
    cache_features: Literal["auto", "memory", "disk", "off"] = Field(
        "auto",
        description="where train: head keeps what the backbone hands on, computed once; auto is memory where it fits",
    )
    cached_views: int | None = Field(
        None, ge=1, description="under data.augment: how many random draws of every image train: head keeps"
    )

    @model_validator(mode="after")
    def _momentum_has_a_user(self) -> Self:
        if self.optimizer != "sgd" and self.momentum != SGD_MOMENTUM:
            raise PydanticCustomError(
                "unused_key",
                "only optimizer sgd has a momentum, not {optimizer}; leave it out",
                {"at": ("momentum",), "optimizer": self.optimizer},
            )
        return self

    @model_validator(mode="after")
    def _depth_has_a_backbone(self) -> Self:
        if self.train == "head" and self.rate_at_first_layer != 1:
            raise PydanticCustomError(
                "unused_key",
                "the head has one rate, and train: head trains nothing else; leave it out",
                {"at": ("rate_at_first_layer",)},
            )
        return self

    @model_validator(mode="after")
    def _an_average_counts_steps(self) -> Self:
        if self.ema is not None and self.accumulate > 1:
            raise PydanticCustomError(
                "unused_key",
                "ema averages after every batch, which is no step under accumulate; leave one of them out",
                {"at": ("accumulate",)},
            )
        return self

    @model_validator(mode="after")
    def _every_batch_size_has_an_epoch(self) -> Self:
        listed = self.batch_size if isinstance(self.batch_size, tuple) else ()
        if len(listed) > self.epochs:
            raise PydanticCustomError(
                "unused_key",
                "expected at most one entry an epoch, got {listed} for {epochs}; leave out those that no epoch has",
                {"at": ("batch_size",), "listed": len(listed), "epochs": self.epochs},
            )
        return self

    @model_validator(mode="after")
    def _the_cache_has_a_user(self) -> Self:
        if self.cached_views is not None and (self.train != "head" or self.cache_features == "off"):
            raise PydanticCustomError(
                "unused_key",
                "features are kept only under train: head, where cache_features is not off; leave it out",
                {"at": ("cached_views",)},
            )
        if self.cache_features not in ("auto", "off") and self.train != "head":
            raise PydanticCustomError(
                "unused_key",
                "features are kept only under train: head; leave it out",
                {"at": ("cache_features",)},
            )
        return self
