"""What is trained next: rates on the first seed, then all seeds at the lowest that is near the best."""

import math

import pytest

from finetune.comparison.outcome import Outcome
from finetune.comparison.plan import Plan

RATES = (0.01, 0.1, 1.0)
FAILED = Outcome(failed="diverged")


@pytest.fixture
def loss_of(outcome):
    """The outcome of a cell: its loss by rate and seed, .5 where nothing is said; None is a failure."""

    def make(cell, losses):
        loss = losses.get((cell.rate, cell.seed), 0.5)
        return FAILED if loss is None else outcome(accuracy=1.0 - cell.seed / 10, loss=loss)

    return make


@pytest.fixture
def followed(loss_of):
    """What a plan trains, round by round, until nothing is due; and the outcomes."""

    def make(plan, losses):
        known, rounds = {}, []
        while due := plan.due(known):
            rounds.append([(cell.rate, cell.seed) for cell in due])
            known |= {cell.key: loss_of(cell, losses) for cell in due}
        return rounds, known

    return make


def test_every_rate_of_every_arm_is_tried_on_the_first_seed(grid):
    assert [(cell.arm.policy, cell.rate, cell.seed) for cell in Plan(grid(rates=(0.01, 0.1))).due({})] == [
        ("freeze", 0.01, 0),
        ("freeze", 0.1, 0),
        ("retrain", 0.01, 0),
        ("retrain", 0.1, 0),
    ]


CASES = {
    "the others are far": ({(0.01, 0): 0.3, (0.1, 0): 0.2, (1.0, 0): 0.9}, [0.1]),
    "a lower one is near": ({(0.01, 0): 0.219, (0.1, 0): 0.2, (1.0, 0): 0.9}, [0.01]),
    "a lower one is not near enough": ({(0.01, 0): 0.221, (0.1, 0): 0.2, (1.0, 0): 0.9}, [0.1]),
    "all are near": ({(0.01, 0): 0.21, (0.1, 0): 0.2, (1.0, 0): 0.21}, [0.01]),
    "the highest is best, and one is near": ({(0.01, 0): 0.4, (0.1, 0): 0.21, (1.0, 0): 0.2}, [0.1]),
    "a bad second seed is no failure": ({(0.01, 0): 0.9, (0.1, 0): 0.2, (0.1, 1): 2.0}, [0.1]),
    "the one taken fails on the second seed": (
        {(0.01, 0): 0.4, (0.1, 0): 0.2, (1.0, 0): 0.9, (0.1, 1): None},
        [0.1, 0.01],
    ),
    "a higher one is left then": (
        {(0.01, 0): 0.2, (0.1, 0): 0.5, (1.0, 0): 0.3, (0.01, 1): None},
        [0.01, 1.0],
    ),
    "a third seed that fails is in the table": ({(0.01, 0): 0.9, (0.1, 0): 0.2, (0.1, 2): None}, [0.1]),
    "only one survived": ({(0.01, 0): None, (0.1, 0): None, (1.0, 0): 2.0}, [1.0]),
    "none survived": (dict.fromkeys([(rate, seed) for rate in RATES for seed in range(3)]), [0.01]),
}


@pytest.mark.parametrize(("losses", "taken"), CASES.values(), ids=CASES)
def test_the_lowest_rate_near_the_best_is_taken_until_it_fails_on_the_second_seed(
    grid, followed, losses, taken
):
    """taken: one after the other; the last one is in the table."""
    plan = Plan(grid(policies=("freeze",), rates=RATES, seeds=3))
    rounds, known = followed(plan, losses)
    assert rounds[0] == [(rate, 0) for rate in RATES]
    on_second = [rate for some in rounds[1:] for rate, seed in some if seed == 1]
    assert on_second == taken
    assert plan.rate(plan.grid.arms()[0], known) == taken[-1]
    assert [(cell.rate, cell.seed) for cell in plan.table(known)] == [(taken[-1], seed) for seed in range(3)]


def test_the_test_split_decides_nothing(grid, followed, outcome):
    plan = Plan(grid(policies=("freeze",), rates=RATES))
    _, known = followed(plan, {(1.0, 0): 0.4})
    better_on_test = {
        key: outcome(accuracy=0.9 * (found.validation_loss > 0.4), loss=found.validation_loss)
        for key, found in known.items()
    }
    assert plan.rate(plan.grid.arms()[0], better_on_test) == plan.rate(plan.grid.arms()[0], known) == 1.0


@pytest.mark.parametrize(("rates", "seeds"), [((), 3), ((0.1,), 3), ((0.01, 0.1), 1)])
def test_without_a_choice_or_a_second_seed_each_cell_is_of_the_table_or_a_trial(grid, followed, rates, seeds):
    plan = Plan(grid(policies=("freeze",), rates=rates, seeds=seeds))
    rounds, known = followed(plan, {(0.01, 0): 0.1})
    assert rounds[0] == [(rate, 0) for rate in rates] or not rates
    best = rates[0] if rates else None
    assert plan.rate(plan.grid.arms()[0], known) == best
    assert len(known) == plan.most() == max(len(rates), 1) + seeds - 1


def test_an_arm_does_not_wait_for_another(grid, loss_of):
    """The seeds of one are due while the rates of the other are being tried."""
    plan = Plan(grid(rates=(0.01, 0.1), seeds=3))
    known = {}
    cells = [cell for cell in plan.due(known) if cell.arm.policy == "freeze"]
    known |= {cell.key: loss_of(cell, {(0.1, 0): 0.9}) for cell in cells}
    assert [(cell.arm.policy, cell.rate, cell.seed) for cell in plan.due(known)] == [
        ("freeze", 0.01, 1),
        ("freeze", 0.01, 2),
        ("retrain", 0.01, 0),
        ("retrain", 0.1, 0),
    ]


def test_what_is_known_stays_chosen_and_nothing_is_trained_twice(grid, followed):
    """Whatever of it an earlier sitting finished."""
    plan = Plan(grid(policies=("freeze",), rates=RATES, seeds=3))
    _, known = followed(plan, CASES["a lower one is near"][0])
    assert len(known) == plan.most()
    keys = list(known)
    for finished in range(len(keys)):
        kept = {key: known[key] for key in keys[:finished]}
        while due := Plan(plan.grid).due(kept):
            kept |= {cell.key: known[cell.key] for cell in due}
        assert kept == known
        assert math.isfinite(kept[plan.table(kept)[0].key].validation_loss)
