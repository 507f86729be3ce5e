"""Where in the file a pydantic error stands, and what may stand there.

pydantic's location names the members of unions as well: ("backbone", "bundled", "weights") is the key
`backbone.weights`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from finetune.recipe_file.problems import Keys, Problem
from finetune.recipe_file.wording import Detail, wording

Models = tuple[type[BaseModel], ...]


def problems_in(error: ValidationError, recipe: type[BaseModel], values: Any) -> list[Problem]:
    """One problem a place; `values` are the plain values that `recipe` refused."""
    details: dict[Keys, list[Detail]] = {}
    choices: dict[Keys, list[str]] = {}
    for detail in error.errors(include_url=False):
        if _is_echo(detail):
            continue
        keys, models = _locate(detail, (recipe,), values)
        details.setdefault(keys, []).append(detail)
        choices[keys] = _choices(detail, models)
    return [Problem(keys, wording(found, choices[keys])) for keys, found in details.items()]


def _is_echo(detail: Detail) -> bool:
    # of a list whose entries were refused pydantic says that it is too short as well
    return detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]


def _locate(detail: Detail, models: Models, values: Any) -> tuple[Keys, Models]:
    """The keys as the file has them, and the models that may stand around the last one."""
    keys: Keys = ()
    around = models
    for part in detail["loc"]:
        if _leads_on(part, values) or (detail["type"] == "missing" and part == detail["loc"][-1]):
            keys, around = (*keys, part), models
            models = models if isinstance(part, int) else tuple(_models_at(part, models))
            values = values[part] if _leads_on(part, values) else None
        else:
            models = tuple(model for model in models if _is_called(part, model)) or models
    if detail["type"].startswith("union_tag"):
        return (*keys, _discriminator(detail)), models
    # errors about several keys say which one they are shown at
    return (*keys, *detail.get("ctx", {}).get("at", ())), around


def _leads_on(part: str | int, values: Any) -> bool:
    return part in values if isinstance(values, dict) else isinstance(values, list) and isinstance(part, int)


def _discriminator(detail: Detail) -> str:
    return str(detail["ctx"]["discriminator"]).strip("'")


def _is_called(name: str | int, model: type[BaseModel]) -> bool:
    return any(name in get_args(field.annotation) for field in model.model_fields.values())


def _models_at(key: str, models: Models) -> Iterator[type[BaseModel]]:
    for model in models:
        for name, field in model.model_fields.items():
            if key == (field.alias or name):
                yield from _models_in(field.annotation)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _choices(detail: Detail, models: Iterable[type[BaseModel]]) -> list[str]:
    if detail["type"] == "union_tag_not_found":
        tags = (get_args(model.model_fields[_discriminator(detail)].annotation) for model in models)
        return list(dict.fromkeys(str(tag) for names in tags for tag in names))
    if detail["type"] == "extra_forbidden":
        keys = (field.alias or name for model in models for name, field in model.model_fields.items())
        return list(dict.fromkeys(keys))
    return []
