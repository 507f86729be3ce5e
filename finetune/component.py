"""A component is a frozen value whose fields are its recipe keys."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Component(BaseModel):
    """Base of every policy, backbone, head, dataset and recipe section.

    Unknown keys are refused, values never change after construction, and two components with equal
    fields are equal. Importing a component imports neither TensorFlow nor Keras: methods do.
    """

    # "strict": a recipe that says epochs: "5" or train: yes means something else than it says
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
