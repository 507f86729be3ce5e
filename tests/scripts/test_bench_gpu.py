"""The benchmark of the accelerator, where there is none; JAX alone, which starts faster than TensorFlow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bench_gpu.py"


def bench(*options):
    command = [sys.executable, str(SCRIPT), "--backends", "jax", *options]
    # a network this small takes longer to optimise than to run
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_without_an_accelerator_it_says_so_in_one_line():
    outcome = bench()
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert outcome.stderr == "no accelerator is seen by jax; --cpu runs a smoke test\n"


def test_the_smoke_test_has_a_row_for_plain_fit_and_for_the_policy():
    outcome = bench("--cpu", "--json", "--policies", "affine", "--precisions", "bfloat16")
    assert outcome.returncode == 0, outcome.stderr
    found = json.loads(outcome.stdout)
    assert found["smoke"] is True
    answer = found["backends"]["jax"]
    assert answer["devices"] == ["CPU"]
    assert [(row["precision"], row["policy"]) for row in answer["rows"]] == [
        ("bfloat16", "stock"),
        ("bfloat16", "affine"),
    ]
    stock, affine = answer["rows"]
    # one round: its rates are the medians
    assert stock["ratio"] == 1
    assert affine["ratio"] == pytest.approx(affine["images_per_second"] / stock["images_per_second"])
