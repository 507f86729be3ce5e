"""Running statistics, gamma and beta against what was promised at each site, on readings made by hand."""

from dataclasses import replace

import numpy as np
import pytest

from finetune.batchnorm.kept import affine_kept, statistics_kept
from finetune.batchnorm.moments import RunningStatistics
from finetune.batchnorm.promise import Promise
from finetune.batchnorm.timeline import Reading, Timeline

PATHS = ("a", "b", "c")
START = dict.fromkeys(PATHS, (0.0, 1.0))
"""Mean and gamma of a site with one channel."""


def readings(**changed):
    return tuple(
        Reading(path, RunningStatistics(np.array([mean]), np.ones(1)), (np.array([gamma]), np.zeros(1)))
        for path, (mean, gamma) in (START | changed).items()
    )


def timeline(trained_sites="", **moments):
    """All readings are those of the start but for the ones that are given."""
    same = readings()
    plain = Timeline(same, same, same, same, None, None, frozenset(trained_sites))
    return replace(plain, **moments)


def promises(statistics, affine="fixed", frozen_epochs=0):
    return {path: Promise(statistics, affine, frozen_epochs) for path in PATHS}


def outcome(checks):
    return {check.name: check.passed for check in checks}


RULES = {"a": Promise("fixed", "fixed"), "b": Promise("measured", "fixed"), "c": Promise("follow", "train")}
HONEST = {"b": (1.0, 1.0), "c": (2.0, 3.0)}
"""What the sites hold at the end where these rules held."""


def under_rules(**changed):
    end = readings(**(HONEST | changed))
    t = timeline("c", started=readings(b=(1.0, 1.0)), trained=end, finished=end)
    checks = (*statistics_kept(RULES, t), *affine_kept(RULES, t))
    return {check.name: check.detail for check in checks if not check.passed}


def test_rules_that_held_at_every_site_pass():
    assert under_rules() == {}


BROKEN = {
    "a fixed site moved": ({"a": (1.0, 1.0)}, "running statistics are fixed", "a"),
    "a measured site moved": ({"b": (2.0, 1.0)}, "measured statistics are fixed", "b"),
    "a measured site is as pretrained": ({"b": (0.0, 1.0)}, "measured statistics are fixed", "b"),
    "a site did not follow": ({"c": (0.0, 3.0)}, "running statistics follow", "c"),
    "a fixed gamma moved": ({"b": (1.0, 2.0)}, "gamma and beta are fixed", "b"),
    "a gamma did not train": ({"c": (2.0, 1.0)}, "gamma and beta train", "c"),
}


@pytest.mark.parametrize(("changed", "name", "path"), BROKEN.values(), ids=BROKEN)
def test_the_rule_that_broke_is_named_with_its_site(changed, name, path):
    broken = under_rules(**changed)
    assert list(broken) == [name]
    assert broken[name].endswith(f": {path}")


@pytest.mark.parametrize(("path", "passed"), [("a", False), ("b", True)])
def test_a_fixed_site_may_not_move_while_another_follows(path, passed):
    rules = promises("fixed") | {"b": Promise("follow", "fixed")}
    moved = readings(**{path: (1.0, 1.0)})
    checks = outcome(statistics_kept(rules, timeline("b", trained=moved, finished=moved)))
    assert checks == {"running statistics are fixed": passed, "running statistics follow": passed}


def test_every_trained_site_that_follows_must_have_moved():
    moved = readings(a=(1.0, 1.0), c=(1.0, 1.0))
    (check,) = statistics_kept(promises("follow"), timeline("abc", trained=moved, finished=moved))
    assert not check.passed
    assert check.detail == "2 of 3 trained sites moved: b"


def test_statistics_that_follow_are_held_through_frozen_epochs():
    trained, held = (readings(a=(m, 1.0), b=(m, 1.0), c=(m, 1.0)) for m in (1.0, 2.0))
    went_on = readings(a=(2.0, 1.0), b=(3.0, 1.0), c=(2.0, 1.0))
    promised, name = promises("follow", frozen_epochs=1), "running statistics stay through the last epochs"
    for finished, passed in ((held, True), (went_on, False)):
        checks = statistics_kept(promised, timeline("abc", trained=trained, held=held, finished=finished))
        assert outcome(checks) == {"running statistics follow": True, name: passed}
    assert checks[-1].detail.endswith(": b")


def test_one_gamma_that_moved_is_enough_where_they_train():
    """The gradient of a dead site is 0."""
    moved = readings(a=(0.0, 2.0))
    checks = affine_kept(promises("fixed", "train"), timeline("abc", finished=moved))
    assert outcome(checks) == {"gamma and beta train": True}
    assert checks[0].detail == "1 of 3 trained sites moved: b, c"
    assert outcome(affine_kept(promises("fixed", "train"), timeline("abc"))) == {
        "gamma and beta train": False
    }


def test_gamma_of_sites_that_no_stage_trained_may_not_move():
    moved = readings(a=(0.0, 2.0), c=(0.0, 2.0))
    checks = affine_kept(promises("fixed", "train"), timeline("c", finished=moved))
    assert outcome(checks) == {
        "gamma and beta of untrained sites are fixed": False,
        "gamma and beta train": True,
    }
