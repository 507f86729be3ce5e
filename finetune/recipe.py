"""A recipe: everything that decides a run, as one frozen value. Imports no Keras."""

from __future__ import annotations

import re
import reprlib
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from finetune.backbones import AnyBackbone
from finetune.component import Component
from finetune.datasets import AnyDataset
from finetune.distribute import Distribute
from finetune.heads import AnyHead, Linear
from finetune.policies import AnyPolicy, Policy, Rules
from finetune.stage import Stage

NAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
"""A name is that of a folder and of an MLflow run."""


def _checked_name(name: str) -> str:
    if re.fullmatch(NAME_PATTERN, name) is None:
        raise PydanticCustomError(
            "name",
            "expected at most 100 letters, digits, '-', '_' and '.', first a letter or digit, got {name}",
            {"name": reprlib.repr(name)},
        )
    return name


Name = Annotated[
    str, AfterValidator(_checked_name), Field(json_schema_extra={"pattern": f"^{NAME_PATTERN}$"})
]


class Tracking(Component):
    """What MLflow gets."""

    enabled: bool = True
    uri: str | None = Field(None, description="MLFLOW_TRACKING_URI, else sqlite:///mlflow.db, where left out")
    experiment: str = Field("finetune", min_length=1)
    log_model: bool = True
    register_as: str | None = Field(
        None,
        alias="register",
        min_length=1,
        description="name in the model registry; only a proven run gets there",
    )
    system_metrics: bool = Field(
        False, description="how busy processor, memory and accelerator are, every 10 s"
    )


class Checkpoints(Component):
    """What a run that is killed goes on from."""

    minutes: float = Field(
        5.0,
        gt=0,
        description="between checkpoints within an epoch; all of them together have 2 % of the time at most",
    )


class Recipe(Component):
    """Everything that decides a run. Field order is the order in which a resolved recipe is written."""

    name: Name = Field("recipe", description="the file's name without .yaml where left out")
    seed: int = Field(0, ge=0, lt=2**32)
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    backbone: AnyBackbone
    data: AnyDataset
    head: AnyHead = Linear()
    batchnorm: AnyPolicy
    stages: tuple[Stage, ...] = Field(min_length=1)
    checkpoint: Checkpoints = Checkpoints()
    distribute: Distribute | None = Field(None, description="one training on several devices or machines")
    tracking: Tracking = Tracking()

    @property
    def policy(self) -> Policy:
        """What `batchnorm` says, as one policy for the whole network."""
        if isinstance(self.batchnorm, tuple):
            return Rules(rules=self.batchnorm)
        return self.batchnorm if self.batchnorm.sites == "*" else Rules(rules=(self.batchnorm,))

    @model_validator(mode="after")
    def _statistics_follow_before_they_stay(self) -> Self:
        frozen, last = self.policy.frozen_epochs, self.stages[-1].epochs
        if frozen >= last:
            raise PydanticCustomError(
                "all_epochs_frozen",
                "expected fewer than the {last} epochs of the last stage, got {frozen}",
                {"at": (*self._at_frozen_epochs(), "freeze_last_epochs"), "last": last, "frozen": frozen},
            )
        return self

    @model_validator(mode="after")
    def _views_differ(self) -> Self:
        for place, stage in enumerate(self.stages):
            if stage.cached_views is not None and not self.data.augment:
                raise PydanticCustomError(
                    "unused_key",
                    "without data.augment all draws of an image are the same; leave it out, or name augmentations",
                    {"at": ("stages", place, "cached_views")},
                )
        return self

    def _at_frozen_epochs(self) -> tuple[str | int, ...]:
        if not isinstance(self.batchnorm, tuple):
            return ("batchnorm",)
        return ("batchnorm", next(n for n, rule in enumerate(self.batchnorm) if rule.frozen_epochs))


def resolved(recipe: Recipe) -> dict[str, Any]:
    """Every key with its value, defaults included, as plain values in recipe order.

    Written as YAML and read again it is an equal recipe.
    """
    sections = recipe.model_dump(mode="json", by_alias=True)
    return {key: _kind_first(value) for key, value in sections.items()}


def _kind_first(section: Any) -> Any:
    # pydantic writes the keys of the base class first
    if isinstance(section, list):
        return [_kind_first(entry) for entry in section]
    if not isinstance(section, dict):
        return section
    kind = {key: section[key] for key in ("source", "policy") if key in section}
    return kind | section


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a recipe, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Recipe.model_json_schema(by_alias=True),
    }
