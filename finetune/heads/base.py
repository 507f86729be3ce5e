"""What every head does: turn features into class probabilities."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Literal

from finetune.component import Component

if TYPE_CHECKING:
    from finetune.classifier import Classifier


class Head(Component):
    """Base of every head."""

    temperature: Literal["unchanged", "fit"]

    @abstractmethod
    def attach(
        self,
        features: Any,
        class_names: tuple[str, ...],
        classifier: Classifier | None,
        *,
        multi_label: bool = False,
    ) -> Any:
        """From a symbolic feature tensor, (batch, h, w, channels) or (batch, channels), to float32
        probabilities (batch, classes). `classifier` is the pretrained one, for heads that keep it.
        multi_label: the classes do not exclude each other, each has a probability of its own.

        Raises WeightsError where a pretrained classifier is asked for and does not fit the classes.
        """
