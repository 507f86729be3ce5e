"""Imports go one way, and what answers at once imports nothing slow."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "finetune"

LAYERS = [
    {
        "errors",
        "component",
        "classifier",
        "result",
        "result_file",
        "masking",
        "folder_lock",
        "full_disk",
        "whole_file",
        "shipped",
        "contributed",
        "layer_packages",
        "damaged_archive",
        "wire",
        "interruption",
        "distribute",
        "keras_backend",
    },
    {"batchnorm"},
    {"distribution"},
    {"torch_import"},
    {"policies", "backbones", "heads", "datasets", "formats", "stage"},
    {
        "recipe",
        "batch_sizes",
        "progress",
        "stopwatch",
        "run_folder",
        "run_state",
        "orders",
        "standing",
        "pace",
    },
    {"recipe_file", "feature_cache"},
    {
        "first_recipe",
        "assemble",
        "optimizer",
        "callbacks",
        "trained_part",
        "averaging",
        "objective",
        "compiling",
        "temperature",
        "conversion",
        "depth_rates",
        "calibration_error",
        "fitting",
        "keeping",
        "flag_scores",
        "multi_label",
        "checkpoint",
        "run_outcome",
        "train",
        "rate_sweep",
        "outlook",
    }
    | {"evaluate", "export", "describe", "provenance", "recalibration"},
    {"tracking", "report", "datasheet", "baselines"},
    {"doctor"},
    {
        "own_loop",
        "training_faults",
        "fine_tuning",
        "training",
        "prepared",
        "run",
        "resumption",
        "sync_run",
        "evaluation_run",
        "recalibration_run",
        "drift_run",
    }
    | {
        "registered_run",
        "drift_series",
        "comparison",
        "compare_run",
        "doctor_run",
        "doctor_recipe",
        "data_run",
        "rates_run",
        "import_run",
        "probe_run",
        "conversion_run",
        "share_run",
    },
    {"cli"},
    {"__main__"},
]
"""From the bottom up: a module imports from its own layer's package or from layers below, never above."""

COMPONENTS = {"policies", "backbones", "heads", "datasets", "formats"}
LIGHT = {
    "policies",
    "backbones",
    "heads",
    "datasets",
    "recipe",
    "recipe_file",
    "stage",
    "distribute",
    "component",
    "errors",
}
HEAVY = {"tensorflow", "keras", "keras_cv", "mlflow", "tensorflow_datasets", "matplotlib", "sklearn"}


def unit(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def modules():
    return [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


def rank(name: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module]
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return []


def all_imports(path: Path) -> set[str]:
    return {name for node in ast.walk(ast.parse(path.read_text())) for name in imported(node)}


def imports_on_import(path: Path) -> set[str]:
    """Those at module level, but for the ones that only type checkers see."""
    return {name for node in ast.parse(path.read_text()).body for name in imported(node)}


def test_every_module_has_its_layer():
    assert {unit(path) for path in modules()} == set().union(*LAYERS)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_never_go_up_or_sideways_between_components(path):
    for name in all_imports(path):
        if not name.startswith("finetune."):
            continue
        target = name.split(".")[1]
        assert rank(target) <= rank(unit(path)), f"{path.name} imports {name} from above"
        if unit(path) in COMPONENTS and target in COMPONENTS:
            assert target == unit(path), f"{path.name} imports {name} sideways"


def test_the_heart_knows_no_recipe_dataset_or_mlflow():
    for path in (ROOT / "batchnorm").glob("*.py"):
        targets = {name.split(".")[1] for name in all_imports(path) if name.startswith("finetune.")}
        assert targets <= {"batchnorm", "result", "damaged_archive"}
        assert not {name.split(".")[0] for name in all_imports(path)} & {
            "mlflow",
            "tensorflow_datasets",
            "keras_cv",
        }


def test_only_the_command_line_prints():
    for path in modules():
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        printing = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]
        assert not printing or unit(path) == "cli", path


def test_there_is_no_assert_in_the_package():
    for path in modules():
        assert not [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Assert)], path


def named_at_top(path: Path) -> set[str]:
    """What a module has to give: what it defines, assigns or imports."""
    tree = ast.parse(path.read_text())
    names = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


@pytest.mark.parametrize("path", sorted((ROOT.parent / "scripts").glob("*.py")), ids=lambda p: p.name)
def test_scripts_import_what_is_there(path):
    """Most of them run for minutes, and none of the tests would see that one does not begin."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("finetune.")):
            continue
        file = ROOT.joinpath(*node.module.split(".")[1:])
        found = file.with_suffix(".py") if file.with_suffix(".py").is_file() else file / "__init__.py"
        submodules = {part.stem for part in file.glob("*.py")} if file.is_dir() else set()
        assert {alias.name for alias in node.names} <= named_at_top(found) | submodules, node.module
