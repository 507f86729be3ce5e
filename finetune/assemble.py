"""Join a backbone and a head to one model that reloads in plain Keras."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

    from finetune.backbones.base import BuiltBackbone
    from finetune.heads.base import Head


def assemble(
    built: BuiltBackbone,
    head: Head,
    class_names: tuple[str, ...],
    image_size: int,
    *,
    multi_label: bool = False,
) -> keras.Model:
    """RGB values 0..255 (batch, image_size, image_size, 3) -> float32 probabilities (batch, classes).

    The preprocessing is inside, and the backbone is nested as one layer. Raises WeightsError where the
    head cannot sit on the backbone.
    """
    import keras

    images = keras.Input((image_size, image_size, 3), dtype="float32", name="image")
    # no training= here: fit overrides it, so it freezes nothing and only looks as if it did (keras#20285)
    features = built.model(built.preprocess(images))
    probabilities = head.attach(features, class_names, built.classifier, multi_label=multi_label)
    return keras.Model(images, probabilities, name="classifier")
