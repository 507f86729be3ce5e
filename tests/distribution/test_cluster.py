"""TF_CONFIG: who is who, and everything that is wrong with it at once."""

import json

import pytest

from finetune.distribution.cluster import EXAMPLE, cluster_of
from finetune.errors import InputError

HOSTS = ["one:1234", "two:1234", "[::1]:1234"]


def config(cluster=None, task=None):
    cluster = {"worker": HOSTS} if cluster is None else cluster
    task = {"type": "worker", "index": 1} if task is None else task
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


def problems(environment):
    with pytest.raises(InputError) as refused:
        cluster_of(environment)
    assert refused.value.exit_code == 2
    return list(refused.value.problems)


def test_the_first_worker_is_the_chief():
    places = [cluster_of(config(task={"type": "worker", "index": place})) for place in range(3)]
    assert [each.index for each in places] == [0, 1, 2]
    assert [each.chief for each in places] == [True, False, False]
    assert str(places[1]) == "worker 2 of 3"


def test_a_task_that_is_called_chief_comes_before_the_workers():
    cluster = {"chief": ["zero:1"], "worker": ["one:1", "two:1"]}
    chief = cluster_of(config(cluster, {"type": "chief", "index": 0}))
    last = cluster_of(config(cluster, {"type": "worker", "index": 1}))
    assert (chief.workers, chief.index) == (("zero:1", "one:1", "two:1"), 0)
    assert (last.workers, last.index) == (chief.workers, 2)


def test_the_example_of_the_messages_is_one():
    assert cluster_of({"TF_CONFIG": EXAMPLE}).chief


@pytest.mark.parametrize("environment", [{}, {"TF_CONFIG": "  "}])
def test_without_it_the_line_shows_one(environment):
    [problem] = problems(environment)
    assert EXAMPLE in problem
    assert "mirrored" in problem


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"cluster": 3, "task": {}}', "[" * 100_000])
def test_what_is_no_such_mapping_is_one_line(text):
    [problem] = problems({"TF_CONFIG": text})
    assert problem.startswith("TF_CONFIG: expected")
    assert len(problem) < 600


def test_all_problems_are_told_at_once():
    found = problems(config({"worker": ["one", "one", 3], "ps": []}, {"type": "worker", "index": 7}))
    for words in ("cluster.ps", "got 'one'", "got 3", "one is there twice", "task.index: 7"):
        assert any(words in problem for problem in found), words


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"type": "evaluator", "index": 0}, "task.type: expected worker or chief, got 'evaluator'"),
        ({"type": "worker"}, "task.index: expected a whole number, got None"),
        ({"type": "worker", "index": True}, "task.index: expected a whole number, got True"),
        ({"type": "worker", "index": 3}, "task.index: 3, but cluster.worker lists 3: expected 0 to 2"),
        ({"type": "worker", "index": -1}, "task.index: -1, but cluster.worker lists 3: expected 0 to 2"),
    ],
)
def test_a_task_that_the_cluster_does_not_have_is_named(task, words):
    assert problems(config(task=task)) == [f"TF_CONFIG: {words}"]
