"""Checkpoints are seldom where they are dear."""

import pytest

from finetune.pace import REST, Pace


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def written(pace, clock, took):
    with pace.writing():
        clock.now += took


def test_within_an_epoch_it_is_due_after_so_many_seconds_and_at_its_end_at_once(clock):
    pace = Pace(300.0, clock)
    assert pace.after_an_epoch
    written(pace, clock, took=0.0)
    clock.now += 299.9
    assert not pace.within_an_epoch
    assert pace.after_an_epoch
    clock.now += 0.2
    assert pace.within_an_epoch
    written(pace, clock, took=0.0)
    assert not pace.within_an_epoch


@pytest.mark.parametrize("took", [0.01, 1.0, 20.0])
@pytest.mark.parametrize("step", [0.05, 2.0])
@pytest.mark.parametrize("epochs", [False, True])
def test_they_never_have_more_than_two_percent_of_the_time(clock, took, step, epochs):
    pace, writing, begun = Pace(1e-9, clock), 0.0, clock.now
    end = begun + 500 * took
    while clock.now < end:
        clock.now += step
        if pace.after_an_epoch if epochs else pace.within_an_epoch:
            written(pace, clock, took)
            writing += took
    assert writing > 0
    # the first one has nothing to be measured by
    assert writing - took <= (clock.now - begun) / REST


def test_one_that_could_not_be_written_is_due_again(clock):
    def fail():
        with pace.writing():
            raise OSError("full")

    pace = Pace(10.0, clock)
    clock.now += 11
    with pytest.raises(OSError, match="full"):
        fail()
    assert pace.within_an_epoch
