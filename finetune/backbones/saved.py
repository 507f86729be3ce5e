"""A backbone out of a model that Keras saved: the features in front of its classifier, or at a layer you name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from finetune.backbones.base import Backbone, BuiltBackbone
from finetune.backbones.keras_file import expected_side, known_class_names, read_model
from finetune.backbones.mlflow_address import fetched, is_address
from finetune.backbones.scaling import Scale, scaling
from finetune.backbones.weights_file import digest
from finetune.classifier import Classifier
from finetune.errors import WeightsError

if TYPE_CHECKING:
    import keras

FREE_SIZE = 224
"""Side in px where the file leaves it open."""


class Saved(Backbone):
    """A model that Keras saved. Code inside the file (Lambda layers) is never run."""

    source: Literal["saved"] = "saved"
    path: str = Field(
        min_length=1,
        description="a .keras or .h5 file, a SavedModel that Keras 2 wrote, or an MLflow address (models:/NAME@ALIAS)",
    )
    layer: str | None = Field(
        None,
        description="top-level layer whose output are the features; the input of the last Dense where left out",
    )
    scale: Scale = Field(
        "none", description="what the model expects of RGB 0..255; none where it takes them as they are"
    )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return ()

    @property
    def default_image_size(self) -> int:
        """The side in the file, which is read without Keras and without MLflow; 224 where that cannot be.

        Raises WeightsError where there is no such file.
        """
        return FREE_SIZE if is_address(self.path) else expected_side(self._file) or FREE_SIZE

    @property
    def _file(self) -> Path:
        return fetched(self.path) if is_address(self.path) else Path(self.path).expanduser()

    def build(self, image_size: int) -> BuiltBackbone:
        file = self._file
        model = read_model(file)
        _check_images(model, image_size, self.path)
        features, classifier = self._features(model, file)
        origin = {
            "source": self.source,
            "file": self.path if is_address(self.path) else file.name,
            "layer": self.layer or ("input of the last Dense" if classifier else "output"),
            "scale": self.scale,
        }
        if file.is_file():
            origin["sha256"] = digest(file)
        return BuiltBackbone(features, scaling(self.scale), origin, classifier)

    def _features(self, model: keras.Model, file: Path) -> tuple[keras.Model, Classifier | None]:
        import keras

        if self.layer is not None:
            return keras.Model(model.inputs[0], self._named(model).output, name="saved"), None
        dense = _last_dense(model)
        if dense is None:
            return keras.Model(model.inputs[0], model.outputs[0], name="saved"), None
        kernel = keras.ops.convert_to_numpy(dense.kernel)
        bias = keras.ops.convert_to_numpy(dense.bias) if dense.use_bias else kernel[0] * 0
        classifier = Classifier(kernel, bias, known_class_names(file, kernel.shape[1]))
        return keras.Model(model.inputs[0], dense.input, name="saved"), classifier

    def _named(self, model: keras.Model) -> keras.Layer:
        for layer in model.layers:
            if layer.name == self.layer:
                return layer
        last = ", ".join(layer.name for layer in model.layers[-5:])
        raise WeightsError(f"{self.path}: no top-level layer {self.layer!r}; its last layers are {last}")


def _check_images(model: Any, image_size: int, path: str) -> None:
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs:
        raise WeightsError(
            f"{path}: a subclassed model has no layers to take features from; save a functional one"
        )
    if len(inputs) > 1 or len(outputs) > 1:
        raise WeightsError(
            f"{path}: has {len(inputs)} inputs and {len(outputs)} outputs; expected one image in, one tensor out"
        )
    shape = tuple(inputs[0].shape)
    if len(shape) != 4 or shape[3] != 3:
        raise WeightsError(f"{path}: takes {shape}; expected RGB images, (batch, height, width, 3)")
    if not {shape[1], shape[2]} <= {None, image_size}:
        raise WeightsError(
            f"{path}: takes images of {shape[1]} x {shape[2]} px, the recipe gives {image_size}; "
            f"set data.image_size: {shape[1]}"
        )


def _last_dense(model: keras.Model) -> keras.layers.Dense | None:
    """The dense classifier at the end, before any activation of its own."""
    import keras

    layers = list(model.layers)
    while layers and isinstance(layers[-1], keras.layers.Activation | keras.layers.Softmax):
        layers.pop()
    return layers[-1] if layers and isinstance(layers[-1], keras.layers.Dense) else None
