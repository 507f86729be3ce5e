"""From a state dict to a Keras classifier, whichever of the known layouts it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from finetune.errors import WeightsError
from finetune.torch_import.building import StateDict
from finetune.torch_import.mobilenet import is_timm, is_torchvision, timm_mobilenet, torchvision_mobilenet
from finetune.torch_import.resnet import is_resnet, resnet

if TYPE_CHECKING:
    import keras
    from numpy.typing import NDArray


class Layout(NamedTuple):
    """classifier: what the last layer is called. matches: whether a state dict has it. features: builds them."""

    words: str
    classifier: str
    matches: Callable[[StateDict], bool]
    features: Callable[[StateDict, Any], Any]


LAYOUTS = (
    Layout("ResNet (torchvision, timm)", "fc", is_resnet, resnet),
    Layout("MobileNetV2 (torchvision)", "classifier.1", is_torchvision, torchvision_mobilenet),
    Layout("MobileNetV2 (timm)", "classifier", is_timm, timm_mobilenet),
)


@dataclass(frozen=True)
class Imported:
    """model: images scaled as PyTorch scales them, (batch, size, size, 3) -> probabilities (batch, classes). layout: in
    words."""

    model: keras.Model
    layout: str


def import_state_dict(tensors: Mapping[str, NDArray], image_size: int, name: str) -> Imported:
    """The network that the tensors are of, at one image size, as plain Keras.

    Raises WeightsError where the layout is none of the known, or a tensor is missing, left over or of another shape.
    """
    import keras

    state = StateDict(tensors)
    layout = next((each for each in LAYOUTS if each.matches(state)), None)
    if layout is None:
        known = ", ".join(each.words for each in LAYOUTS)
        raise WeightsError(
            f"the state dict is of none of the known layouts ({known}); it begins with {', '.join([*tensors][:3])}"
        )
    images = keras.Input((image_size, image_size, 3), name="image")
    features = layout.features(state, images)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    model = keras.Model(images, state.classified(pooled, layout.classifier), name=name)
    state.fill()
    return Imported(model, layout.words)
