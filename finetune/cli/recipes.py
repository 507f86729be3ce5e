"""`finetune check`, `show` and `schema`: recipes, without building anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli.options import AsJson, RecipeFile, Set
from finetune.errors import RecipeError

if TYPE_CHECKING:
    from finetune.component import Component
    from finetune.recipe import Recipe


def check(
    recipes: Annotated[list[Path], typer.Argument(metavar="RECIPE...", help="YAML files, as in recipes/.")],
    set_: Set = None,
    as_json: AsJson = False,
) -> None:
    """Say whether recipes can be read.

    Tells every problem with its line; exit code 2 if there is one.

    \b
    finetune check recipes/resnet_freeze.yaml
    finetune check recipes/*.yaml --json
    """
    from finetune.recipe_file import load_recipe

    outcomes = []
    for path in recipes:
        try:
            said, problems = in_brief(load_recipe(path, set_ or [])), []
        except RecipeError as error:
            said, problems = None, list(error.problems)
        outcomes.append({"recipe": str(path), "ok": not problems, "summary": said, "problems": problems})
        if not as_json:
            _tell(path, said, problems)
    if as_json:
        import json

        typer.echo(json.dumps(outcomes, indent=2))
    if not all(outcome["ok"] for outcome in outcomes):
        raise typer.Exit(RecipeError.exit_code)


def _tell(path: Path, said: str | None, problems: list[str]) -> None:
    if said:
        typer.echo(f"ok  {path}: {said}")
    for problem in problems:
        typer.echo(f"error: {problem}", err=True)


def in_brief(recipe: Recipe) -> str:
    """`bundled resnet50_quarter, freeze, tfds fashion_shift`, and the batch sizes that stages have of their own."""
    from finetune.batch_sizes import sizes_in_words

    backbone, data = recipe.backbone, recipe.data
    said = f"{backbone.source} {_identity(backbone)}, {_policy(recipe)}, {data.source} {_identity(data)}"
    sizes = [(number, sizes_in_words(stage)) for number, stage in enumerate(recipe.stages, 1)]
    return said + "".join(f", stage {number} in {words}" for number, words in sizes if words)


def _policy(recipe: Recipe) -> str:
    """`freeze`, or under rules `affine at *v2_stack_3_*, freeze at *`."""
    if not isinstance(recipe.batchnorm, tuple):
        return recipe.policy.policy
    return ", ".join(f"{rule.policy} at {rule.sites}" for rule in recipe.batchnorm)


def _identity(component: Component) -> str:
    # every source calls what it opens by one of these keys
    return str(getattr(component, "name", None) or getattr(component, "path", ""))


def show(recipe: RecipeFile, set_: Set = None, as_json: AsJson = False) -> None:
    """Write a recipe with every key, defaults included.

    What comes out is a recipe as well.

    \b
    finetune show recipes/resnet_freeze.yaml
    finetune show recipes/resnet_freeze.yaml --set batchnorm.policy=retrain > mine.yaml
    """
    from finetune.recipe import resolved
    from finetune.recipe_file import load_recipe, write

    values = resolved(load_recipe(recipe, set_ or []))
    if as_json:
        import json

        typer.echo(json.dumps(values, indent=2))
    else:
        typer.echo(write(values), nl=False)


def schema() -> None:
    """Write the JSON schema of recipes, for editors.

    With it they complete keys and mark mistakes. VS Code (YAML extension), Neovim and JetBrains look
    for it in the first line of a recipe:

    \b
    finetune schema > recipes/schema.json
    # yaml-language-server: $schema=schema.json
    """
    import json

    from finetune.recipe import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))
