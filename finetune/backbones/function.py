"""A backbone that a function of yours builds: `module:function`, as gunicorn and MLflow name code.

Running the recipe runs that function, so such a recipe is to be trusted like a script.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

from finetune.backbones.base import Backbone, BuiltBackbone
from finetune.backbones.scaling import Scale, scaling
from finetune.errors import WeightsError


class Function(Backbone):
    """A function that returns a Keras model without its top: (image_size) -> model, or () -> model."""

    source: Literal["function"] = "function"
    name: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="module:function, looked for in this folder and among what is installed",
    )
    scale: Scale = Field(
        "none", description="what the model expects of RGB 0..255; none where it takes them as they are"
    )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return ()

    @property
    def default_image_size(self) -> int:
        """224: the function is not asked; data.image_size names another."""
        return 224

    def build(self, image_size: int) -> BuiltBackbone:
        function = self._function()
        try:
            takes = inspect.signature(function).parameters
            model = function(image_size) if takes else function()
        # whatever the function raises
        except Exception as error:
            raise WeightsError(f"{self.name} raised {type(error).__name__}: {error}") from error
        self._check(model, image_size)
        origin = {"source": self.source, "name": self.name, "scale": self.scale}
        return BuiltBackbone(model, scaling(self.scale), origin)

    def _function(self) -> Callable[..., Any]:
        module_name, _, name = self.name.partition(":")
        # console scripts leave it out, python -m has it
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        try:
            module = importlib.import_module(module_name)
        # whatever the module raises
        except Exception as error:
            raise WeightsError(
                f"{self.name}: {module_name} cannot be imported from {os.getcwd()} ({type(error).__name__}: {error})"
            ) from error
        function = getattr(module, name, None)
        if not callable(function):
            found = "is not a function" if hasattr(module, name) else "is not there"
            raise WeightsError(f"{self.name}: {name} {found}; expected a function that returns a Keras model")
        return function

    def _check(self, model: Any, image_size: int) -> None:
        import keras

        if (
            not isinstance(model, keras.Model)
            or not model.built
            or len(getattr(model, "inputs", None) or ()) != 1
        ):
            raise WeightsError(
                f"{self.name} returned {type(model).__name__}; expected a built Keras model with one input"
            )
        shape = tuple(model.inputs[0].shape)
        if len(shape) != 4 or not {shape[1], shape[2]} <= {None, image_size} or shape[3] != 3:
            raise WeightsError(
                f"{self.name} returned a model that takes {shape}; expected (batch, {image_size}, {image_size}, 3)"
            )
