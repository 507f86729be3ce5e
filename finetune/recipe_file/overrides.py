"""`--set stages.0.epochs=2`: one value of a recipe, changed from the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from finetune.recipe_file.problems import Keys, Override, Problem, dotted
from finetune.recipe_file.yaml_text import Document, NotReadable, read


def apply(overrides: Sequence[str], document: Document) -> None:
    """Change the values of `document`, in order; what cannot be changed becomes one of its problems.

    Sections on the way are made where they are missing: whether they belong there, the recipe says.
    """
    for position, text in enumerate(overrides):
        override = Override(f"--set {text}", position)
        try:
            parts, value = _split(text)
            keys, container = _way(parts, document, override)
        except _CannotSet as error:
            document.problems.append(Problem((), str(error), override))
            continue
        container[keys[-1]] = value
        for known in [known for known in document.places if known[: len(keys)] == keys]:
            del document.places[known]
        document.places[keys] = Override(override.text, position, keys)


class _CannotSet(Exception):
    """Says what an override should have been."""


def _split(text: str) -> tuple[list[str], Any]:
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise _CannotSet("expected text in UTF-8")
    path, equals, value = text.partition("=")
    # messages write stages[0].epochs: what they name can be given back as it is
    parts = re.sub(r"\[([0-9]+)\]", r".\1", path.strip()).split(".")
    if not equals or not all(parts):
        raise _CannotSet("expected KEY=VALUE, as in --set stages.0.epochs=2")
    try:
        return parts, read(value).values
    except NotReadable as error:
        raise _CannotSet(error.problems[0].text) from error


def _way(parts: Sequence[str], document: Document, override: Override) -> tuple[Keys, Any]:
    """The keys to the value, and the section or list that holds it."""
    keys: Keys = ()
    container = document.values
    for part in parts[:-1]:
        keys = (*keys, _key(part, container, keys))
        if isinstance(container, dict) and container.get(part) is None:
            container[part] = {}
            document.places[keys] = override
        container = container[keys[-1]]
    return (*keys, _key(parts[-1], container, keys)), container


def _key(part: str, container: Any, keys: Keys) -> str | int:
    if isinstance(container, dict):
        return part
    if not isinstance(container, list):
        raise _CannotSet(f"{dotted(keys)} is a single value, with nothing named {part!r} in it")
    if not container:
        raise _CannotSet(f"{dotted(keys)} is an empty list")
    if not re.fullmatch("[0-9]{1,9}", part) or int(part) >= len(container):
        raise _CannotSet(f"{dotted(keys)} has items 0 to {len(container) - 1}, not {part!r}")
    return int(part)
