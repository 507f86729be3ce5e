"""A comparison of real trainings on a small network: broken off, gone on with, and what it leaves."""

import json
import sys

import pytest
import ray
from mlflow import MlflowClient
from ray.cluster_utils import Cluster

from finetune.compare_run import compare, in_words
from finetune.comparison.cell import carry_out, sharing
from finetune.comparison.grid import Grid
from finetune.comparison.journal import NAME
from finetune.comparison.outcome import Outcome
from finetune.errors import InputError
from finetune.progress import Progress
from finetune.recipe_file import load_recipe
from finetune.run import run
from tests.nets import tiny_backbone

RECIPE = """
backbone: {{source: saved, path: {folder}/backbone.keras}}
data:
  source: tfds
  name: fashion_shift
  train: "train[:96]"
  validation: "validation[:48]"
  test: "test[:60]"
  calibration: "calibration[:64]"
  image_size: 12
  batch_size: 32
batchnorm: {{policy: retrain}}
stages:
  - {{train: head, epochs: 1, learning_rate: 0.1}}
  - {{train: everything, epochs: 1, learning_rate: 0.005}}
tracking: {{uri: "sqlite:///{folder}/mlflow.db", experiment: compared}}
"""


class Interrupted(Progress):
    """A person who presses Ctrl-C when the second cell is finished."""

    def phase(self, name):
        if name.startswith("  2/"):
            raise KeyboardInterrupt


class Heard(Progress):
    """Remembers what was said."""

    def __init__(self):
        self.words = []

    def phase(self, name):
        self.words.append(name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    tiny_backbone().save(folder / "backbone.keras")
    (folder / "small.yaml").write_text(RECIPE.format(folder=folder))
    return folder


@pytest.fixture(scope="module")
def grid(folder):
    """At one of the two rates nothing survives."""
    return Grid(folder / "small.yaml", ("freeze", "retrain"), (), (), (0.005, 1e9), 2)


@pytest.fixture(scope="module")
def sittings(grid, folder):
    """Lines of the journal after the one that was broken off, and what the next one came back with."""
    with pytest.raises(KeyboardInterrupt):
        compare(grid, folder / "out", progress=Interrupted())
    kept = (folder / "out" / NAME).read_text()
    heard = Heard()
    return kept, compare(grid, folder / "out", progress=heard), heard.words


def test_what_was_finished_is_not_trained_again(sittings, folder):
    kept, compared, heard = sittings
    assert kept.count("\n") == compared.known == 2
    assert (folder / "out" / NAME).read_text().startswith(kept)
    # four trials, of which two are seed 0 of the table, and seed 1 of these
    assert compared.trained == 4
    assert "2 cells finished earlier" in heard[0]


def test_each_policy_has_the_rate_at_which_it_survives(sittings):
    _, compared, heard = sittings
    assert [line.rate for line in compared.comparison.lines] == [0.005, 0.005]
    assert any("rate 1e+09" in words and "failed" in words for words in heard)


def test_a_cell_is_what_finetune_run_makes_of_the_same_recipe(sittings, grid, folder):
    _, compared, _ = sittings
    line = compared.comparison.lines[1]
    alone = run(grid.cell(line.arm, line.rate, 1).recipe, runs_folder=folder / "runs")
    assert line.scores[1] == pytest.approx(alone.test.metrics["accuracy"], abs=1e-6)


def test_a_cell_repeats_itself(sittings, grid):
    _, compared, _ = sittings
    line = compared.comparison.lines[0]
    again = carry_out(grid.cell(line.arm, line.rate, 1).recipe)
    assert (again.failed, again.score("accuracy"), again.verified) == ("", line.scores[1], True)


def test_a_policy_that_did_not_hold_is_a_failure(grid, monkeypatch):
    monkeypatch.setattr("finetune.batchnorm.sites.BNSite.freeze", lambda site: site.follow(None))
    cell = grid.cell(grid.arms()[0], 0.005, 0)
    assert carry_out(cell.recipe).failed.startswith("the policy did not hold: ")


def test_only_kept_features_of_the_head_go_to_the_disk(folder):
    recipe = load_recipe(folder / "small.yaml")
    assert [stage.cache_features for stage in sharing(recipe).stages] == ["disk", "auto"]
    off = load_recipe(folder / "small.yaml", ["stages.0.cache_features=off"])
    assert sharing(off) == off


@pytest.fixture(scope="module")
def patched():
    with pytest.MonkeyPatch.context() as patched:
        yield patched


@pytest.fixture(scope="module")
def on_ray(folder, patched):
    """What a cluster of two made of a line of the table, and the nodes that cells were trained on; one of them goes
    away after the first cell."""
    patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    patched.setenv("RAY_ADDRESS", cluster.address)
    nodes = folder / "nodes"
    nodes.mkdir()

    def prepare():
        (nodes / ray.get_runtime_context().get_node_id()).touch()

    class SecondGoesAway(Progress):
        def phase(self, name):
            if second in cluster.worker_nodes and name.startswith("  1/"):
                cluster.remove_node(second)

    # of three cells one is always at work when the node goes
    line = Grid(folder / "small.yaml", ("freeze",), (), (), (), 3)
    try:
        compared = compare(
            line,
            folder / "on_ray",
            on_ray=True,
            tracking_uri=f"sqlite:///{folder}/ray.db",
            progress=SecondGoesAway(),
            prepare=prepare,
        )
    finally:
        cluster.shutdown()
    return compared, len(list(nodes.iterdir()))


def test_a_ray_cluster_of_two_comes_to_the_same_though_one_of_them_goes_away(sittings, on_ray):
    _, here, _ = sittings
    there, nodes = on_ray
    assert nodes == 2
    [line], [same, _] = there.comparison.lines, here.comparison.lines
    assert len(line.scores) == 3
    assert {seed: line.scores[seed] for seed in same.scores} == pytest.approx(same.scores, abs=1e-6)


def test_without_a_ray_cluster_one_line_says_how_to_start_one(grid, folder, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(
        InputError, match=r"^--ray: no Ray cluster found at 'auto'; start one with `ray start --head`"
    ):
        compare(grid, folder / "none", on_ray=True)


def test_without_ray_one_line_says_what_to_install(grid, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"^--ray: needs the package ray; pip install 'finetune\[ray\]'$"):
        compare(grid, folder / "none", on_ray=True)


def test_the_recommended_recipe_loads(sittings):
    _, compared, _ = sittings
    best = compared.comparison.recommended[""]
    recipe = load_recipe(compared.recommended[""])
    assert (recipe.batchnorm.policy, recipe.stages[1].learning_rate) == (best.arm.policy, 0.005)


def test_page_and_json_say_the_same(sittings, folder):
    _, compared, _ = sittings
    found = json.loads((folder / "out" / "comparison.json").read_text())
    assert [line["mean"] for line in found["lines"]] == [line.mean for line in compared.comparison.lines]
    assert all(verdict["words"] in compared.page.read_text() for verdict in found["verdicts"])


def test_lines_of_progress_tell_the_metric_that_is_compared():
    outcome = Outcome(
        metrics={"accuracy": 0.9, "macro_f1": 0.5},
        validation_accuracy=0.8,
        validation_metrics={"macro_f1": 0.4},
        seconds=12,
    )
    assert in_words(outcome, "macro_f1") == "macro f1 test 0.500, validation 0.400, 12 s"
    assert in_words(outcome, "accuracy") == "accuracy test 0.900, validation 0.800, 12 s"


def test_mlflow_has_a_parent_with_a_child_for_every_cell_of_the_table(sittings, folder):
    _, compared, _ = sittings
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("compared").experiment_id])
    [parent] = [one for one in found if "bn.comparison" in one.data.tags]
    children = [one for one in found if one.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert [item.path for item in client.list_artifacts(parent.info.run_id)] == ["compare.html"]
    assert parent.data.metrics == {
        f"{kind}/{line.arm.policy}": pytest.approx(value)
        for line in compared.comparison.lines
        for kind, value in (("mean", line.mean), ("spread", line.spread))
    }
    seen = {(c.data.params["arm.name"], int(c.data.params["seed"])): c.data.metrics for c in children}
    assert len(seen) == len(children) == 4
    for line in compared.comparison.lines:
        for seed, accuracy in line.scores.items():
            assert seen[line.arm.name, seed]["test/accuracy"] == pytest.approx(accuracy)
    assert {child.data.tags["bn.verified"] for child in children} == {"true"}


def runs_in(folder):
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    return {
        run.info.run_id: (run.info.status, run.data.metrics)
        for run in client.search_runs([client.get_experiment_by_name("compared").experiment_id])
    }


def test_the_same_comparison_again_adds_nothing_to_mlflow(sittings, grid, folder):
    before = runs_in(folder)
    again = compare(grid, folder / "out")
    assert (again.trained, again.known) == (0, 6)
    assert runs_in(folder) == before


def test_a_grid_with_more_seeds_is_another_comparison_in_mlflow(sittings, grid, folder):
    before = runs_in(folder)
    fewer = Grid(grid.path, grid.policies, (), (), grid.rates, 1)
    compare(fewer, folder / "out")
    # a parent and two children
    assert len(runs_in(folder)) == len(before) + 3
    assert runs_in(folder).items() >= before.items()
