"""Another package's policy, backbone, dataset and format, over the command line, as after `pip install`."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent / "example_package"
RECIPE = """
backbone: {source: two_sites, filters: 6}
data: {source: stripes, images: 48, image_size: 12, batch_size: 16}
batchnorm: {policy: swift}
stages: [{train: everything, epochs: 3, learning_rate: 0.05}]
tracking: {enabled: false}
"""


def install(folder, entries):
    """What an installer leaves of a package: its modules, and what it declares."""
    shutil.copytree(EXAMPLE / "finetune_example", folder / "finetune_example")
    described = folder / "finetune_example-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: finetune-example\nVersion: 1.0\n")
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in group_entries.items())
        for group, group_entries in entries.items()
    ]
    (described / "entry_points.txt").write_text("\n".join(lines))


def finetune(place, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "finetune", *arguments],
        cwd=place,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(place / "installed"), str(EXAMPLE.parents[1])]),
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    (folder / "installed").mkdir()
    declared = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]["entry-points"]
    install(folder / "installed", declared)
    (folder / "mine.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def ran(place):
    done = finetune(place, "run", "mine.yaml", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("kind", "name"), [("policies", "swift"), ("backbones", "two_sites"), ("datasets", "stripes")]
)
def test_they_are_listed_with_their_keys(place, kind, name):
    rows = {row["name"]: row for row in json.loads(finetune(place, "list", kind, "--json").stdout)}
    key = {"swift": "momentum", "two_sites": "filters", "stripes": "images"}[name]
    assert key in rows[name]["keys"]


def test_the_schema_knows_them(place):
    schema = json.loads(finetune(place, "schema").stdout)
    assert {"Swift", "TwoSites", "Stripes"} <= set(schema["$defs"])


def test_a_run_of_them_is_proven(ran, place):
    assert ran["verified"] is True
    recipe = (place / "runs" / "mine-1" / "recipe.yaml").read_text()
    assert "momentum: 0.5" in recipe


def test_a_problem_in_their_keys_has_its_line(place):
    (place / "wrong.yaml").write_text(RECIPE.replace("swift", "swift, momentum: 2"))
    refused = finetune(place, "check", "wrong.yaml")
    assert refused.returncode == 2
    assert "wrong.yaml:4 batchnorm.momentum: expected a number below 1, got 2" in refused.stderr


def test_a_file_of_their_format_is_measured_anew(ran, place):
    from tests.example_package.finetune_example.format import ENVELOPE

    inside = (place / "runs" / "mine-1" / "model.keras").read_bytes()
    (place / "model.envelope").write_bytes(ENVELOPE + inside)
    (place / "other.envelope").write_bytes(b"another" + inside)
    said = finetune(place, "doctor", "model.envelope", "--json")
    assert "enveloped .keras file" in said.stdout, said.stderr
    refused = finetune(place, "doctor", "other.envelope")
    assert refused.returncode == 2
    assert (
        "or finetune.formats enveloped (finetune_example.format:open_enveloped) of finetune-example; this"
        in (refused.stderr)
    )


@pytest.mark.parametrize(
    ("group", "value", "words"),
    [
        (
            "policies",
            "finetune_example.nowhere:Swift",
            "finetune.policies swift (finetune_example.nowhere:Swift) of finetune-example: cannot be imported "
            "(No module named 'finetune_example.nowhere'); repair or uninstall the package",
        ),
        (
            "backbones",
            "finetune_example.policy:Swift",
            "expected a subclass of finetune.backbones.base.Backbone, got <class 'finetune_example.policy.Swift'>",
        ),
        (
            "policies",
            "finetune.policies.freeze:Freeze",
            "its policy 'freeze' is that of finetune's own Freeze; rename it",
        ),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path, group, value, words):
    (tmp_path / "installed").mkdir()
    install(tmp_path / "installed", {f"finetune.{group}": {"swift": value}})
    refused = finetune(tmp_path, "list", "policies")
    assert refused.returncode == 2
    [line] = refused.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line
