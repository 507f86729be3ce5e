"""Reading a recipe file: every problem at once, each with its file, line and key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import to_json

from finetune.errors import RecipeError
from finetune.recipe import Recipe
from finetune.recipe_file.locating import problems_in
from finetune.recipe_file.overrides import apply
from finetune.recipe_file.problems import in_order
from finetune.recipe_file.yaml_text import Document, NotReadable, read, write

LARGEST_FILE = 1_000_000
"""Bytes."""

__all__ = ["load_recipe", "load_text", "write"]


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file, with `overrides` ("stages.0.epochs=2") put in before it is checked.

    Raises RecipeError with one line a problem.
    """
    return load_text(_text_of(Path(path)), source=str(path), overrides=overrides)


def load_text(text: str, source: str = "recipe.yaml", overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in YAML text; `source` names it in messages and, without .yaml, in the recipe.

    Raises RecipeError with one line a problem.
    """
    document = _document(text, source)
    apply(overrides, document)
    document.values.setdefault("name", _name_for(source))
    problems = document.problems
    try:
        # as JSON, because strict mode takes a list for a tuple only from there
        recipe = Recipe.model_validate_json(to_json(document.values, inf_nan_mode="constants"))
    except ValidationError as error:
        problems = [*problems, *problems_in(error, Recipe, document.values)]
    if problems:
        raise RecipeError(in_order(problems, source, document.places))
    return recipe


def _document(text: str, source: str) -> Document:
    try:
        document = read(text)
    except NotReadable as error:
        raise RecipeError(in_order(error.problems, source, {})) from error
    wanted = "a recipe has the sections backbone, data, batchnorm and stages"
    if document.values is None:
        raise RecipeError(f"{source}: empty; {wanted}")
    if not isinstance(document.values, dict):
        found = "a list" if isinstance(document.values, list) else "a single value"
        raise RecipeError(f"{source}:{document.places[()]}: expected keys and values, got {found}; {wanted}")
    return document


def _name_for(source: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]", "-", Path(source).stem).lstrip("._-")
    return name[:100] or "recipe"


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file{_near(path)}") from None
    except IsADirectoryError:
        raise RecipeError(f"{path}: a folder, not a recipe file{_inside(path)}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RecipeError(f"{path}: cannot be read: {reason}") from None
    if len(data) > LARGEST_FILE:
        raise RecipeError(f"{path}: larger than {LARGEST_FILE} bytes; this is no recipe")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RecipeError(f"{path}:{line}: not UTF-8 text") from None


def _near(path: Path) -> str:
    known = [
        file for folder in dict.fromkeys((path.parent, Path("recipes"))) for file in folder.glob("*.yaml")
    ]
    by_name = {file.stem: file for file in known}
    close = difflib.get_close_matches(path.stem, by_name, n=3)
    return f"; did you mean {' or '.join(str(by_name[name]) for name in close)}?" if close else ""


def _inside(path: Path) -> str:
    recipes = sorted(path.glob("*.yaml"))
    return f"; it holds {', '.join(file.name for file in recipes[:3])}" if recipes else ""
