"""What replicas agree on before a training, and what they tell each other, with threads for workers."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from finetune.batchnorm.moments import PopulationMoments, RunningStatistics
from finetune.batchnorm.replicas_agree import replicas_agree
from finetune.batchnorm.timeline import Reading, Timeline
from finetune.distribute import Distribute
from finetune.distribution.agreement import refuse_unlike
from finetune.distribution.cluster import Cluster
from finetune.distribution.replicas import ALONE, Replicas, open_replicas
from finetune.distribution.shares import SharedImages
from finetune.distribution.uneven import uneven_batches
from finetune.errors import InputError

WORKERS = 3


def in_company(work, workers=WORKERS):
    """What `work(replicas)` comes to in each of so many threads that exchange vectors; errors are outcomes."""
    barrier, spoken = threading.Barrier(workers), {}

    def one(place):
        def everyone(vector):
            barrier.wait(10)
            spoken[place] = vector
            barrier.wait(10)
            return [spoken[other] for other in range(workers)]

        cluster = Cluster(tuple(f"host{n}:1" for n in range(workers)), place)
        try:
            return work(Replicas(count=workers, cluster=cluster, everyone=everyone))
        except InputError as error:
            return error

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, range(workers)))


def moments(values):
    return PopulationMoments.of_batch(len(values), values.mean(0), values.var(0))


def test_words_of_any_length_reach_everyone_in_order():
    said = in_company(lambda replicas: replicas.told("ü" * replicas.worker))
    assert said == [["", "ü", "üü"]] * WORKERS
    assert ALONE.told("me") == ["me"]


def test_merged_moments_are_those_of_the_whole_in_every_worker_to_the_bit():
    random = np.random.default_rng(0)
    values = [random.normal(size=(n, c)) * 3 + 50 for n, c in ((90, 4), (60, 1))]

    def work(replicas):
        return replicas.combine([moments(each[replicas.worker :: WORKERS]) for each in values])

    merged = in_company(work)
    for each in merged[1:]:
        for one, other in zip(merged[0], each, strict=True):
            assert one.mean.tobytes() == other.mean.tobytes()
            assert one.m2.tobytes() == other.m2.tobytes()
    for found, whole in zip(merged[0], values, strict=True):
        assert found.count == len(whole)
        np.testing.assert_allclose(found.mean, whole.mean(0), rtol=1e-12)
        np.testing.assert_allclose(found.variance, whole.var(0), rtol=1e-12)


@pytest.mark.parametrize(("count", "shared"), [(32, True), (17, True), (16, False), (3, False)])
def test_shares_together_are_the_whole_set(count, shared):
    """In batches of 8; where there is not one for each worker, everyone measures all."""
    import tensorflow as tf

    def opened(limit):
        return tf.data.Dataset.range(count if limit is None else min(limit, count)).batch(8)

    def work(replicas):
        images = SharedImages(opened, count, 8, replicas)
        numbers = [n for batch in images().as_numpy_iterator() for n in batch.tolist()]
        values = np.array(numbers, np.float64)[:, None]
        [pooled] = images.combine()([moments(values)])
        return numbers, pooled.count

    outcomes = in_company(work)
    seen = [number for numbers, _ in outcomes for number in numbers]
    assert sorted(seen) == sorted(list(range(count)) * (1 if shared else WORKERS))
    assert {total for _, total in outcomes} == {count}


def test_workers_that_are_about_to_do_something_else_are_named_in_all_of_them():
    def work(replicas):
        settled = {
            "recipe": "r",
            "data": "d" * (1 + (replicas.worker == 1)),
            "weights": f"w{replicas.worker == 2}",
        }
        return refuse_unlike(replicas, settled)

    outcomes = in_company(work)
    for error in outcomes:
        second, third = error.problems
        assert second.startswith("worker 2 of 3: other data than the first worker; ")
        assert third.startswith("worker 3 of 3: other weights than the first worker; ")


def test_workers_that_agree_go_on():
    assert in_company(lambda replicas: refuse_unlike(replicas, {"data": "same"})) == [None] * WORKERS


def test_batches_that_cannot_be_shared_alike_are_named_by_their_key():
    sizes = {"data.batch_size": {30, 32}, "stages[1].batch_size": {9, 12}, "stages[2].batch_size": {2}}
    found = uneven_batches(Replicas(count=3), sizes)
    assert [problem.split(" images")[0] for problem in found] == [
        "data.batch_size: batches of 32",
        "stages[2].batch_size: batches of 2",
    ]
    assert "expected a multiple of 3, as 30" in found[0]
    assert "expected a multiple of 3, as 3 " in found[1]
    assert uneven_batches(ALONE, sizes) == []


def test_one_device_is_told_and_trained_on_as_ever():
    replicas = open_replicas(Distribute(strategy="mirrored", devices=("CPU:0",)))
    assert replicas.strategy is None
    assert replicas.notes == ("distribute: CPU:0 is the only device here; the run is as without distribute",)
    assert ALONE.notes == ()


def test_devices_that_are_not_there_are_named_with_those_that_are():
    with pytest.raises(
        InputError, match=r"distribute\.devices: CPU:7, GPU:9: not on this machine; found CPU:0"
    ):
        open_replicas(Distribute(strategy="mirrored", devices=("CPU:0", "CPU:7", "GPU:9")))


def test_many_workers_without_tf_config_are_refused():
    with pytest.raises(InputError, match="TF_CONFIG"):
        open_replicas(Distribute(strategy="multi_worker"), {})


def readings():
    return [
        Reading(path, RunningStatistics(np.array([1.0, 2.0]), np.array([1.0, 4.0])), ())
        for path in ("a", "b")
    ]


def agreed(replicas):
    same = readings()
    timeline = Timeline(same, same, same, same, None, None, frozenset("ab"), replicas=replicas)
    return replicas_agree(timeline)


def test_one_replica_has_nothing_to_agree_on():
    assert agreed(None) == ()


@pytest.mark.parametrize("off", [0.0, 1e-7, 1e-3, float("nan")])
def test_replicas_whose_statistics_differ_are_caught_by_site(off):
    apart = RunningStatistics(np.array([1.0, 2.0 + off]), np.array([1.0, 4.0]))
    held = [reading.statistics for reading in readings()]
    [check] = agreed([held, held, [held[0], apart]])
    assert check.name == "every replica holds the same statistics"
    assert check.passed is (off < 1e-5)
    assert check.detail.startswith("3 replicas, 2 sites: largest distance ")
    assert check.detail.endswith(": b") is not check.passed
