"""A linear classifier on pooled features, new or as it came with the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from finetune.errors import WeightsError
from finetune.heads.base import Head

if TYPE_CHECKING:
    from finetune.classifier import Classifier


class Linear(Head):
    """Average pooling where there are positions, dropout, hidden layers if any, softmax; sigmoid for multi-label."""

    kind: Literal["linear"] = "linear"
    dropout: float = Field(0.0, ge=0, lt=1, description="share of the features dropped while training")
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="widths of ReLU layers in between"
    )
    weights: Literal["new", "pretrained"] = Field(
        "new", description="pretrained: the classifier that came with the backbone, for the same classes"
    )

    temperature: Literal["unchanged", "fit"] = Field(
        "unchanged",
        description="fit: after the training one number divides the logits, the one with the lowest validation"
        " cross-entropy: it calibrates confidence, changes no prediction and leaves BN sites alone (Guo et al. 2017)",
    )

    @model_validator(mode="after")
    def _pretrained_is_linear(self) -> Self:
        if self.weights == "pretrained" and self.hidden:
            raise PydanticCustomError(
                "hidden_before_pretrained",
                "the pretrained classifier sits right on the features; leave hidden out, or take weights: new",
                {"at": ("hidden",)},
            )
        return self

    def attach(
        self,
        features: Any,
        class_names: tuple[str, ...],
        classifier: Classifier | None,
        *,
        multi_label: bool = False,
    ) -> Any:
        import keras

        if self.weights == "pretrained":
            _check_fit(classifier, class_names)
        x = _pooled(features)
        if self.dropout:
            x = keras.layers.Dropout(self.dropout, name="dropout")(x)
        for index, width in enumerate(self.hidden, start=1):
            x = keras.layers.Dense(width, activation="relu", name=f"hidden_{index}")(x)
        activation = "sigmoid" if multi_label else "softmax"
        # float32: a softmax in half precision rounds small probabilities to 0, and the loss to infinity
        last = keras.layers.Dense(len(class_names), activation=activation, dtype="float32", name="classes")
        probabilities = last(x)
        if self.weights == "pretrained" and classifier is not None:
            last.set_weights([classifier.kernel, classifier.bias])
        return probabilities


def _pooled(features: Any) -> Any:
    import keras

    if len(features.shape) == 4:
        return keras.layers.GlobalAveragePooling2D(name="pool")(features)
    if len(features.shape) == 2:
        return features
    raise WeightsError(
        f"the backbone's features are {tuple(features.shape)}; a linear head takes (batch, height, width, channels) "
        "or (batch, channels)"
    )


def _check_fit(classifier: Classifier | None, class_names: tuple[str, ...]) -> None:
    if classifier is None:
        raise WeightsError("head.weights: pretrained, but this backbone comes without a classifier; use new")
    count = classifier.kernel.shape[1]
    if count != len(class_names):
        raise WeightsError(
            "head.weights: class count does not match the weights: the pretrained classifier has "
            f"{count} classes, the data {len(class_names)}; use new"
        )
    differing = [
        pair for pair in zip(classifier.class_names, class_names, strict=False) if pair[0] != pair[1]
    ]
    if differing:
        theirs, ours = differing[0]
        raise WeightsError(
            f"head.weights: class names do not match the weights: {theirs!r} in the pretrained classifier is "
            f"{ours!r} in the data ({len(differing)} of {count} differ); use new"
        )
