"""Which preprocessing a model wants, as far as its file says; what it does not say is asked for, never guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from finetune.errors import InputError, ModelError
from finetune.formats.deployed import InputSpec
from finetune.recalibration.preprocessing import Preprocessing

KEY = "preprocessing"
"""Of `provenance.json`: what a person said once about a foreign model is known the next time."""

SAID, IN_PROVENANCE, IN_SIGNATURE = "as told", "from provenance.json", "from the model's input"


@dataclass(frozen=True)
class Wanted:
    """origins: by field of the preprocessing, where its value comes from."""

    preprocessing: Preprocessing
    origins: Mapping[str, str]

    def __str__(self) -> str:
        """In one line, to be shown before anything is measured."""
        by_origin: dict[str, list[str]] = {}
        for field, origin in self.origins.items():
            by_origin.setdefault(origin, []).append(field.replace("_", " "))
        where = "; ".join(f"{', '.join(fields)} {origin}" for origin, fields in by_origin.items())
        return f"images: {self.preprocessing} [{where}]"


def wanted_preprocessing(
    spec: InputSpec, provenance: Mapping[str, Any], told: Mapping[str, Any] | None = None
) -> Wanted:
    """What to do to pictures for a model with one image input.

    told: fields of Preprocessing that a person gave; they go before provenance, which goes before the signature.
    Raises ModelError where the model reads no images, and InputError with everything that has to be told.
    """
    signature = from_signature(spec)
    sources = (
        (SAID, {key: value for key, value in (told or {}).items() if value is not None}),
        (IN_PROVENANCE, from_provenance(provenance, spec)),
        (IN_SIGNATURE, signature),
    )
    found: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, values in sources:
        for field, value in values.items():
            if field not in found:
                found[field], origins[field] = value, origin
    problems = _missing(found, spec) + _contradictions(found, signature, spec)
    if problems:
        raise InputError(problems)
    try:
        return Wanted(Preprocessing(**found), origins)
    except ValidationError as error:
        raise InputError([f"input {spec.name}: {_line(problem)}" for problem in error.errors()]) from error


def from_signature(spec: InputSpec) -> dict[str, Any]:
    """What name, shape and dtype of an input tell. Raises ModelError for one that takes no images."""
    values: dict[str, Any] = {"dtype": spec.dtype} | ({"scale": "none"} if "float" not in spec.dtype else {})
    if spec.shape is None:
        return values
    if len(spec.shape) != 4:
        raise ModelError(
            f"input {spec.name}: expected images, (batch, height, width, channels), found {spec.shape}"
        )
    _, first, _, last = spec.shape
    if last in (1, 3):
        values["layout"], channels, sides = "nhwc", last, spec.shape[1:3]
    elif first in (1, 3):
        values["layout"], channels, sides = "nchw", first, spec.shape[2:4]
    elif first is None or last is None:
        return values
    else:
        raise ModelError(f"input {spec.name}: expected images of 1 or 3 channels, found shape {spec.shape}")
    if channels == 1:
        values["order"] = "grey"
    if None not in sides:
        if sides[0] != sides[1]:
            raise ModelError(f"input {spec.name}: expected square images, found {sides[0]} x {sides[1]} px")
        values["image_size"] = sides[0]
    return values


def from_provenance(provenance: Mapping[str, Any], spec: InputSpec) -> dict[str, Any]:
    """What was written when the model was made: by `finetune run`, or by an earlier recalibration."""
    told = provenance.get(KEY)
    if isinstance(told, Mapping):
        return {field: told[field] for field in Preprocessing.model_fields if told.get(field) is not None}
    data = provenance.get("data")
    if "recipe" not in provenance or not isinstance(data, Mapping) or "image_size" not in data:
        return {}
    return {
        "image_size": data["image_size"],
        "scale": "none",
        "order": "rgb",
        "layout": "nhwc",
        "dtype": spec.dtype,
    }


def _missing(found: Mapping[str, Any], spec: InputSpec) -> list[str]:
    problems = []
    if "image_size" not in found:
        problems.append(f"input {spec.name}: it takes images of any size; say which with --image-size")
    if "scale" not in found:
        problems.append(
            f"input {spec.name}: it takes {spec.dtype}, and nothing says how values 0..255 are scaled; "
            "say it with --scale none, unit, -1..1, imagenet or caffe"
        )
    return problems


def _contradictions(found: Mapping[str, Any], signature: Mapping[str, Any], spec: InputSpec) -> list[str]:
    """What was told or written and cannot be, since the model's input is fixed."""
    fixed = ("image_size", "layout", "dtype")
    return [
        f"input {spec.name}: {field.replace('_', ' ')} {found[field]} does not fit, the model takes {signature[field]}"
        for field in fixed
        if field in signature and found[field] != signature[field]
    ]


def _line(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {problem['msg']}" if where else str(problem["msg"]).removeprefix("Value error, ")
