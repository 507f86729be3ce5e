"""What every dataset hands on: four splits of uint8 images at one size."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from finetune.component import Component
from finetune.datasets.augment import Augmentation
from finetune.datasets.camera import Shift
from finetune.datasets.mix import Mix

if TYPE_CHECKING:
    import tensorflow as tf

    from finetune.datasets.originals import Originals

SPLIT_NAMES = ("train", "validation", "test", "calibration")


@dataclass(frozen=True)
class Split:
    """Some labelled images in a fixed order.

    examples: a finite dataset of (image uint8 (size, size, 3) RGB, label int32 ()); of multi-label images the label is
        (classes,) of 0 and 1.
    count: how many images it has.
    description: what a person would call it, e.g. "fashion_shift train[:1000], fog 3".
    """

    name: str
    examples: tf.data.Dataset
    count: int
    description: str


@dataclass(frozen=True)
class Splits:
    """What a run reads: train, validation and test share no image; calibration may be the training images,
    whose labels it does not use.

    digest: a hash of what decides which images are in which split, and how they look.
    licence: None where it is not known.
    shares_training: the calibration set is the training images.
    multi_label: an image shows any number of the classes.
    notes: what a person should hear about the data, e.g. which corrupt images were left out.
    """

    train: Split
    validation: Split
    test: Split
    calibration: Split
    class_names: tuple[str, ...]
    image_size: int
    digest: str
    licence: str | None = None
    notes: tuple[str, ...] = ()
    shares_training: bool = False
    multi_label: bool = False


class Dataset(Component):
    """Base of every dataset: what is read, how it looks and how it is batched."""

    source: str
    """Its name, in one word."""

    image_size: int | None = Field(None, ge=8, description="side in px; the backbone's own where left out")
    batch_size: int = Field(32, ge=1, description="images a training step")
    class_weights: Literal["none", "balanced"] = "none"
    shift: Shift | None = Field(None, description="a label-preserving change of the camera, on every split")
    augment: tuple[Augmentation, ...] = ()
    mix: Mix | None = Field(None, description="of training images, two by two, after the augmentation")
    folds: int | None = Field(
        None,
        ge=2,
        description="deal training and validation images into so many folds; fold `seed` mod folds is for validation,"
        " so that compare --seeds FOLDS is a cross-validation",
    )
    examples_per_class: int | None = Field(
        None, ge=1, description="train on so many images of each class; which ones is up to the seed"
    )

    @model_validator(mode="after")
    def _an_image_of_two_classes_has_no_weight(self) -> Self:
        if self.mix is not None and self.class_weights != "none":
            raise PydanticCustomError(
                "unused_key",
                "class_weights weigh images by their one class, and mixed images have two; leave one of them out",
                {"at": ("mix",)},
            )
        return self

    def load(self, image_size: int, seed: int) -> Splits:
        """Open the four splits at `image_size`. Raises DataError with every problem found."""
        # what is dealt into folds, and what they are tested on, must not depend on the seed
        splits = self.read(image_size, seed if self.folds is None else 0)
        if self.folds is None and self.examples_per_class is None:
            return splits
        from finetune.datasets.dealt import few, in_folds

        if self.folds is not None:
            splits = in_folds(splits, self.folds, seed)
        return splits if self.examples_per_class is None else few(splits, self.examples_per_class, seed)

    @abstractmethod
    def read(self, image_size: int, seed: int) -> Splits:
        """The four splits of the source, at `image_size`. Raises DataError with every problem found."""

    def originals(self) -> Originals | None:
        """What the images are before they are resized, where that can be told without reading all of them."""
        return None

    def check_augmentation(self, image_size: int) -> None:
        """Build the augmentation layers once, so that a wrong option is said before anything is trained."""
        if self.augment:
            import tensorflow as tf

            from finetune.datasets.augmentation_layers import build_layers

            build_layers(self.augment, image_size, tf.random.Generator.from_seed(0))
