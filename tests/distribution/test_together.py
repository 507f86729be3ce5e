"""Several devices, or several processes on loopback, end as one process does on the same batches.

The starts of the processes are what is expensive, so each does everything that is looked at here, and all are forked
from one that has imported TensorFlow and computed nothing.
"""

import json
import os
import socket
import traceback
from contextlib import ExitStack
from multiprocessing import get_context

import numpy as np
import pytest

from tests.batchnorm.test_kernel import definition
from tests.distribution import scenes
from tests.distribution.scenes import SAMPLES, far_from_zero, write_recipe

FOUR_DECIMALS = 5e-5


def free_addresses(count):
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


LONGEST = 900
"""Seconds."""


def started(context, together, distribute, out, environment=None):
    """together: where all that train together wait for each other before they end; it lives as long as it is held."""
    process = context.Process(target=scene, args=(together, distribute, out, environment or {}))
    process.start()
    return process, out, together


def scene(together, distribute, out, environment):
    """One process; what goes wrong in it lies beside what it would have left.

    A forked process is gone at once when it ends, and would be taken for lost by those that still hear its last words.
    """
    os.environ.update(environment)
    try:
        scenes.main(distribute, out)
        together.wait(LONGEST)
    except BaseException:
        together.abort()
        out.with_suffix(".error").write_text(traceback.format_exc())
        raise


def ended(processes):
    try:
        for process, *_ in processes:
            process.join(LONGEST)
    finally:
        for process, *_ in processes:
            process.kill()
    said = {out.stem: out.with_suffix(".error") for process, out, _ in processes if process.exitcode}
    assert not said, {name: words.exists() and words.read_text()[-3000:] for name, words in said.items()}


def loaded(path):
    with np.load(path) as found:
        return dict(found)


@pytest.fixture(scope="module")
def company(tmp_path_factory):
    """What comes of it on one device, on two of this machine, and in each of several processes."""
    folder, processes = tmp_path_factory.mktemp("together"), []
    write_recipe(folder)
    context = get_context("forkserver")
    context.set_forkserver_preload(["tensorflow", "finetune.run"])
    devices = {"strategy": "mirrored", "devices": ["CPU:0", "CPU:1"]}
    processes.append(started(context, context.Barrier(1), devices, folder / "mirrored.npz"))
    for size in SIZES:
        addresses, together = free_addresses(size), context.Barrier(size)
        for place in range(size):
            told = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": place}}
            out = folder / f"{place}of{size}.npz"
            environment = {"TF_CONFIG": json.dumps(told)}
            processes.append(started(context, together, {"strategy": "multi_worker"}, out, environment))
    ended(processes)
    found = {path.stem: loaded(path) for path in folder.glob("*of*.npz")}
    return (
        found | {name: loaded(folder / f"{name}.npz") for name in ("alone", "mirrored")} | {"folder": folder}
    )


SIZES = (2, 3)
WORKERS = [f"{place}of{size}" for size in SIZES for place in range(size)]
EVERYONE = ["mirrored", *WORKERS]


@pytest.mark.parametrize("who", EVERYONE)
def test_weights_statistics_and_losses_are_those_of_one_process_to_four_decimals(company, who):
    for part in ("weights", "logs"):
        found, expected = (company[some][f"together/{part}"] for some in (who, "alone"))
        np.testing.assert_allclose(found, expected, rtol=FOUR_DECIMALS, atol=FOUR_DECIMALS, err_msg=part)


@pytest.mark.parametrize("who", EVERYONE)
def test_synchronised_sites_hold_the_same_in_every_replica(company, who):
    held = company[who]["together/held"]
    assert len(held) == (3 if who.endswith("3") else 2)
    np.testing.assert_allclose(held, np.broadcast_to(held[0], held.shape), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("who", EVERYONE)
def test_sites_that_are_left_to_themselves_hold_their_own(company, who):
    """The trap: what would be saved is what the first replica saw."""
    held = company[who]["apart/held"]
    assert np.abs(held - held[0]).max() > 0.05
    assert np.abs(held[0] - company["alone"]["apart/held"][0]).max() > 0.05


@pytest.mark.parametrize("who", EVERYONE)
def test_a_site_on_shares_is_that_of_the_definition_on_the_whole_also_far_from_zero(company, who):
    """Moments and gradients in float64; Keras' own synchronised variance is off by a hundredth here."""
    x, upstream, gamma, beta, _ = far_from_zero()
    expected = definition(x.astype(np.float32).astype(np.float64), gamma, beta, upstream)
    names = ("outputs", "mean", "variance", "of_inputs", "of_gamma", "of_beta")
    for name, value in zip(names, expected, strict=True):
        found = company[who][f"site/{name}"]
        np.testing.assert_allclose(found, value, rtol=1e-3, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("size", SIZES)
def test_all_workers_are_the_same_to_the_bit(company, size):
    first, *others = (company[f"{place}of{size}"] for place in range(size))
    for name, value in first.items():
        if not name.startswith("apart"):
            for other in others:
                assert value.tobytes() == other[name].tobytes(), name


@pytest.mark.parametrize("who", WORKERS)
@pytest.mark.parametrize("method", ["layerwise", "one_pass"])
def test_what_workers_measure_in_shares_is_what_one_process_measures(company, who, method):
    found, expected = company[who], company["alone"]
    assert found[f"{method}/images"] == expected[f"{method}/images"] == SAMPLES
    np.testing.assert_allclose(found[f"{method}/stored"], expected[f"{method}/stored"], rtol=1e-6)
    # the merging alone: moments of the same float32 batches of the same network, in another order
    np.testing.assert_allclose(found[f"{method}/moments"], expected[f"{method}/moments"], rtol=1e-12)


def test_one_of_two_workers_writes_the_run_and_both_know_what_was_found(company):
    first, second = company["0of2"], company["1of2"]
    for name in ("run/folder", "run/checks", "run/test"):
        np.testing.assert_array_equal(first[name], second[name])
    assert "every replica holds the same statistics: True" in first["run/checks"].tolist()
    assert str(first["run/folder"]) == "runs/small-1"
    runs = sorted(path.name for path in (company["folder"] / "runs").iterdir())
    assert runs == ["apart-1", "small-1"]
    written = {path.name for path in (company["folder"] / "runs/small-1").iterdir()}
    assert {"model.keras", "report.html", "recipe.yaml", "run.json", "saved_model"} <= written
    lines = (company["folder"] / "runs/small-1/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]


def test_a_run_whose_replicas_hold_statistics_of_their_own_fails_in_every_worker_and_leaves_no_model(company):
    for who in ("0of2", "1of2"):
        said = str(company[who]["run/apart"])
        assert (
            "policy retrain did not hold: every replica holds the same statistics: 2 replicas, 2 sites"
            in said
        )
        assert "saved/bn_1, saved/bn_2" in said
    assert not (company["folder"] / "runs/apart-1/model.keras").exists()
