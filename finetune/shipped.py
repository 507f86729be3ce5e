"""The recipes that come with the toolkit: inside the package where it is installed, beside it in a checkout."""

from __future__ import annotations

import difflib
from pathlib import Path

from finetune.errors import InputError, OutputError

PLACES = (Path(__file__).parent / "shipped_recipes", Path(__file__).parents[1] / "recipes")
SCHEMA = "# yaml-language-server: $schema=schema.json\n"


def shipped_folder() -> Path:
    """Where they lie."""
    return next((place for place in PLACES if place.is_dir()), PLACES[-1])


def shipped_recipes() -> dict[str, Path]:
    """By name."""
    return {path.stem: path for path in sorted(shipped_folder().glob("*.yaml"))}


def copy_recipe(name: str, target: Path) -> None:
    """A recipe of one's own to begin with: the same text, under its new name in the line that runs it.

    Raises InputError for a name that is not shipped, OutputError where the target is there or cannot be written.
    """
    known = shipped_recipes()
    if name.removesuffix(".yaml") not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"no recipe {name!r}: expected {', '.join(known)}{hint}")
    source = known[name.removesuffix(".yaml")]
    text = source.read_text(encoding="utf-8").replace(
        f"#   finetune run recipes/{source.name}\n", f"#   finetune run {target}\n"
    )
    if not (target.parent / "schema.json").is_file():
        text = text.removeprefix(SCHEMA)
    try:
        # "x": never over a recipe that is there
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise OutputError(f"{target}: is there already; name another file") from error
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror}); name another file") from error
