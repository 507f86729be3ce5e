"""From outcomes to the table, the verdicts, the recommendation and the page."""

import json
import math
import re

import numpy as np
import pytest

from finetune.comparison.arms import Arm
from finetune.comparison.comparison import summed_up
from finetune.comparison.outcome import Outcome
from finetune.comparison.page import render
from finetune.comparison.plan import Plan
from finetune.comparison.tables import plain, table, write_recommended
from finetune.recipe_file import load_recipe


@pytest.fixture
def compared(grid, outcome):
    """Two settings; retrain is better on test, freeze on validation; a seed of retrain diverged at batch size 8."""
    made = grid(varied=(("data.batch_size=8", "data.batch_size=32"),), seeds=3)
    cells = Plan(made).table({})
    found = {}
    for cell in cells:
        gain = 0.1 if cell.arm.policy == "retrain" else 0.0
        found[cell.key] = outcome(
            accuracy=0.5 + gain + 0.01 * cell.seed, validation=0.7 - gain, seconds=10.0 + cell.seed
        )
    broken = next(c for c in cells if c.arm == Arm("data.batch_size=8", "retrain") and c.seed == 1)
    found[broken.key] = Outcome(failed="diverged <at> step 3", seconds=2.0)
    return made, summed_up("small", cells, found)


def test_means_and_spreads_are_those_of_the_seeds_that_did_not_fail(compared):
    _, comparison = compared
    whole = next(line for line in comparison.lines if line.arm == Arm("data.batch_size=32", "retrain"))
    assert whole.mean == pytest.approx(np.mean([0.6, 0.61, 0.62]))
    assert whole.spread == pytest.approx(np.std([0.6, 0.61, 0.62], ddof=1))
    broken = next(line for line in comparison.lines if line.arm == Arm("data.batch_size=8", "retrain"))
    assert broken.scores == {0: 0.6, 2: pytest.approx(0.62)}
    headings, rows = table(comparison)
    assert headings[:2] == ("setting", "policy")
    [row] = [row for row in rows if row[:2] == ("data.batch_size=8", "retrain")]
    assert row[-2:] == ("2 of 3", "8")


def test_what_is_compared_can_be_balanced(grid, outcome):
    """retrain is the more accurate one, freeze the better balanced; what an earlier version kept lacks that."""
    made = grid()
    cells = Plan(made).table({})

    def found(known):
        better = {cell.key: 0.1 * (cell.arm.policy == "freeze") + 0.01 * cell.seed for cell in cells}
        return {
            key: Outcome(
                metrics={"accuracy": 0.9 - gain, "balanced_accuracy": 0.6 + gain},
                validation_accuracy=0.9 - gain,
                validation_metrics={"balanced_accuracy": 0.5 + gain} if known else {},
            )
            for key, gain in better.items()
        }

    comparison = summed_up("small", cells, found(known=True), "balanced_accuracy")
    assert comparison.recommended[""].arm.policy == "freeze"
    assert comparison.lines[0].scores == {0: 0.7, 1: pytest.approx(0.71)}
    page = render(comparison, write_recommended(comparison, made, made.path.parent))
    assert "<th>test balanced accuracy</th>" in page
    assert plain(comparison)["metric"] == "balanced_accuracy"
    assert summed_up("small", cells, found(known=True)).recommended[""].arm.policy == "retrain"
    assert summed_up("small", cells, found(known=False), "balanced_accuracy").recommended == {}


def test_failures_are_listed(compared):
    _, comparison = compared
    assert comparison.failed == ["retrain, data.batch_size=8, seed 1: diverged <at> step 3"]


def test_policies_are_compared_within_a_setting_by_the_seeds_that_both_have(compared):
    _, comparison = compared
    assert {setting: [v.pair.seeds for v in some] for setting, some in comparison.verdicts.items()} == {
        "data.batch_size=8": [2],
        "data.batch_size=32": [3],
    }
    assert all(v.pair.better == "retrain" and v.shown for some in comparison.verdicts.values() for v in some)


def test_validation_recommends_and_the_test_split_does_not(compared):
    _, comparison = compared
    assert {line.arm.policy for line in comparison.recommended.values()} == {"freeze"}


def test_nothing_is_recommended_where_everything_failed(grid):
    cells = Plan(grid()).table({})
    comparison = summed_up("small", cells, {cell.key: Outcome(failed="no") for cell in cells})
    assert comparison.recommended == {}
    assert math.isnan(comparison.lines[0].mean)
    assert len(comparison.failed) == 4
    assert "What failed" in render(comparison, {})
    assert json.loads(json.dumps(plain(comparison), allow_nan=False))["lines"][0]["mean"] is None


def test_the_recommended_recipe_is_the_one_that_was_trained(compared, tmp_path):
    made, comparison = compared
    written = write_recommended(comparison, made, tmp_path)
    assert sorted(path.name for path in written.values()) == [
        "recommended_data_batch_size_32.yaml",
        "recommended_data_batch_size_8.yaml",
    ]
    path = written["data.batch_size=8"]
    expected = made.cell(Arm("data.batch_size=8", "freeze"), None, 0).recipe
    assert load_recipe(path).model_copy(update={"name": expected.name}) == expected
    assert path.read_text().startswith("# Chosen by finetune compare on validation: freeze.\n")


def test_json_has_every_seed_and_every_verdict(compared):
    _, comparison = compared
    found = json.loads(json.dumps(plain(comparison), allow_nan=False))
    assert found["lines"][3]["scores"] == {"0": 0.6, "1": pytest.approx(0.61), "2": pytest.approx(0.62)}
    assert len(found["verdicts"]) == 2
    assert found["recommended"] == {"data.batch_size=8": "freeze", "data.batch_size=32": "freeze"}


def test_the_page_stands_alone_and_escapes_what_failed(compared, tmp_path):
    made, comparison = compared
    page = render(comparison, write_recommended(comparison, made, tmp_path))
    assert "diverged &lt;at&gt; step 3" in page
    assert not re.search(r'(src|href)="(?!#)', page)
    assert page.count("<svg") == 2
    for setting in comparison.verdicts:
        assert setting in page
    for some in comparison.verdicts.values():
        assert all(verdict.words in page for verdict in some)


def test_many_lines_are_compared_with_the_recommended_one_only(grid, outcome):
    momenta = tuple(f"batchnorm.momentum={momentum}" for momentum in (0.1, 0.5, 0.9, 0.99))
    made = grid(varied=(momenta,))
    cells = Plan(made).table({})
    good = Arm("", "retrain", "batchnorm.momentum=0.9")
    comparison = summed_up(
        "small", cells, {c.key: outcome(accuracy=0.5, validation=0.5 + 0.1 * (c.arm == good)) for c in cells}
    )
    pairs = [verdict.pair for verdict in comparison.verdicts[""]]
    assert len(comparison.lines) == 5
    assert len(pairs) == 4
    assert all("retrain momentum=0.9" in (pair.better, pair.other) for pair in pairs)
