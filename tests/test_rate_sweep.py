"""A sweep of learning rates: its curve against closed forms, and a model that is given back as it was."""

import math

import numpy as np
import pytest

from finetune.cli.rating import as_plain, summary
from finetune.errors import InputError
from finetune.policies import Freeze, Retrain
from finetune.progress import Progress
from finetune.rate_sweep import RateSweep, RisingRate, ramp, smoothed, sweep_rates
from finetune.rates_run import find_rates
from finetune.recipe_file import load_text
from finetune.report.rates import render
from finetune.stage import Stage
from tests.recipe_file import GOOD
from tests.test_train import material, trainee

EVERYTHING = Stage(train="everything", epochs=1, learning_rate=0.1)


def test_rates_are_the_same_factor_apart():
    rates = ramp(1e-5, 10.0, 61)
    assert rates[0] == pytest.approx(1e-5)
    assert rates[-1] == pytest.approx(10.0)
    np.testing.assert_allclose(np.diff(np.log(rates)), math.log(1e6) / 60, rtol=1e-9)


@pytest.mark.parametrize("centre", [-7.0, -4.0, -1.0])
def test_the_steepest_fall_of_a_logistic_curve_is_its_centre(centre):
    """Up to one step of the ramp; smoothing on both sides moves no slope."""
    rates = ramp(1e-5, 10.0, 100)
    losses = tuple(1 / (1 + np.exp(2 * (np.log(rates) - centre))))
    found = RateSweep(rates, losses, None).steepest
    assert abs(math.log(found) - centre) <= math.log(rates[1] / rates[0]) + 1e-9


def test_a_loss_that_only_rises_has_no_steepest_fall():
    rates = ramp(1e-5, 10.0, 40)
    assert RateSweep(rates, tuple(np.linspace(1, 2, 40)), None).steepest is None


def test_a_straight_line_is_smoothed_to_itself():
    line = np.linspace(3.0, -1.0, 73)
    np.testing.assert_allclose(smoothed(line), line, atol=1e-12)


@pytest.mark.parametrize("policy", [Freeze(), Retrain()])
def test_the_model_is_given_back_as_it_was(policy):
    subject = trainee()
    before = subject.model.get_weights()
    momenta = [site.momentum for site in subject.sites]
    swept = sweep_rates(subject, policy, EVERYTHING, material(), ramp(1e-4, 1e6, 40), Progress())
    assert all(np.array_equal(a, b) for a, b in zip(before, subject.model.get_weights(), strict=True))
    assert [site.momentum for site in subject.sites] == momenta
    assert swept.exploded is not None
    assert len(swept.losses) == len(swept.rates) < 40


def test_the_losses_are_those_of_the_batches():
    """At a rate at which nothing moves: under fixed statistics, up to the dropout of the network."""
    subject = trainee()
    swept = sweep_rates(subject, Freeze(), EVERYTHING, material(), ramp(1e-12, 1e-11, 30), Progress())
    expected = []
    for x, y in material().training.batches.as_numpy_iterator():
        probabilities = np.asarray(subject.model(x, training=False), np.float64)
        expected.append(-np.log(probabilities[np.arange(len(y)), y]).mean())
    assert swept.exploded is None
    assert len(swept.losses) == 30
    np.testing.assert_allclose(swept.losses, expected * 10, atol=0.05)


class Watching(Progress):
    """What a variable is after every batch."""

    def __init__(self, variable):
        self.variable, self.seen = variable, [np.array(variable)]

    def share(self, done):
        self.seen.append(np.array(self.variable))


def test_the_rates_of_the_batches_are_those_of_the_ramp():
    """One step of plain gradient descent: the weights move in proportion to the rate of their batch."""
    moved = []
    for rate in (0.01, 0.02):
        subject = trainee()
        watching = Watching(subject.model.trainable_variables[0])
        stage = EVERYTHING.model_copy(update={"momentum": 0.0})
        sweep_rates(subject, Freeze(), stage, material(), (rate, rate), watching)
        moved.append(watching.seen[1] - watching.seen[0])
    np.testing.assert_allclose(moved[1], 2 * moved[0], rtol=1e-2, atol=1e-6)
    assert np.abs(moved[0]).max() > 1e-5


@pytest.mark.parametrize("given", [{"low": 0.0}, {"low": 2.0, "high": 1.0}, {"steps": 5}])
def test_a_sweep_that_makes_no_sense_is_refused(given):
    with pytest.raises(InputError, match="expected 0 < low < high and at least 20 steps"):
        find_rates({}, **given)


def test_a_stage_that_is_not_there_is_refused():
    with pytest.raises(InputError, match=r"^--stage 3: the recipe has 1 stage; expected 1 to 1$"):
        find_rates({"retrain": load_text(GOOD)}, stage=3)


SWEEPS = {
    "freeze": RateSweep(ramp(1e-4, 1.0, 30), tuple(np.linspace(2, 1, 30)), 0.5),
    "<script>": RateSweep(ramp(1e-4, 1.0, 30), tuple(np.linspace(1, 2, 30)), None),
}


def test_page_terminal_and_json_say_the_same(tmp_path):
    page, shown, plain = render(SWEEPS), summary(SWEEPS, tmp_path / "r.yaml", None), as_plain(SWEEPS)
    assert "<script>" not in page
    assert plain["freeze"]["exploded"] == 0.5
    for words in ("0.5", "never falls", "not reached"):
        assert words in page
        assert words in shown
    assert plain["freeze"]["lowest"] == pytest.approx(1.0)
    last = (
        f"next    finetune compare {tmp_path}/r.yaml --policies freeze,<script> --learning-rates 0.03,0.1,0.3"
    )
    assert shown.splitlines()[-1] == last


def test_rates_on_the_axis_can_be_read():
    """matplotlib writes powers of ten as formulas, which stay unread in our figures."""
    assert "mathdefault" not in render(SWEEPS)


def test_a_rough_loss_that_was_small_is_no_explosion():
    watch = RisingRate((1.0,) * 60, Progress())
    watch.set_model(trainee().model)
    losses = [0.8] * 20 + [0.2] * 20 + [1.3] * 20
    for batch in range(60):
        watch.on_train_batch_end(batch, {"loss": float(np.mean(losses[: batch + 1]))})
    assert watch.exploded is None
    np.testing.assert_allclose(watch.losses, losses, atol=1e-9)
