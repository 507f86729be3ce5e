"""`finetune run` under KERAS_BACKEND=jax, on one and on two devices of this machine: in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from finetune import keras_backend
from finetune.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
TWO_DEVICES = "--xla_force_host_platform_device_count=2"


@pytest.fixture(scope="module")
def under_jax(tmp_path_factory):
    """The folder in which the laws of jax_run_laws.py left their runs, each by the name of its recipe."""
    folder = tmp_path_factory.mktemp("jax")
    settings = {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        # networks as small as these take longer to optimise than to run
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        # runs of one recipe compile the same
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "XLA_FLAGS": TWO_DEVICES,
        "FINETUNE_JAX_RUNS": str(folder),
    }
    options = ["-p", "no:cacheprovider", "-q", "--numprocesses=0"]
    outcome = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests/jax_run_laws.py"],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return folder


def test_the_laws_of_a_run_hold_under_jax(under_jax):
    assert (under_jax / "runs" / "one-1" / "model.keras").is_file()


def test_a_model_that_jax_trained_answers_under_tensorflow_as_the_run_measured_it(under_jax):
    folder = under_jax / "runs" / "one-1"
    assert keras.backend.backend() == "tensorflow"
    model = keras.saving.load_model(folder / "model.keras", compile=False)
    with np.load(under_jax / "answers.npz") as known:
        answers = np.asarray(model.predict(known["images"], verbose=0))
        np.testing.assert_allclose(answers, known["probabilities"], atol=1e-5)


def test_on_tensorflow_data_parallel_is_refused_with_what_to_do():
    from finetune.distribute import Distribute
    from finetune.distribution.replicas import open_replicas

    with pytest.raises(InputError, match="KERAS_BACKEND=jax; set it, or take strategy: mirrored"):
        open_replicas(Distribute(strategy="data_parallel"))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [("torch", "expected tensorflow or jax, got torch"), ("jax", r"pip install 'finetune\[jax\]'")],
)
def test_a_backend_that_is_not_there_is_one_line(monkeypatch, wanted, words):
    monkeypatch.setenv("KERAS_BACKEND", wanted)
    monkeypatch.setattr(keras_backend.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=words):
        keras_backend.require_backend(any_known=True)


@pytest.mark.parametrize("command", ["doctor", "recalibrate", "rates", "export"])
def test_what_computes_on_tensorflow_alone_says_so_before_it_imports_anything(command, tmp_path):
    (tmp_path / "r.yaml").write_text((ROOT / "recipes" / "resnet_freeze.yaml").read_text())
    options = {"recalibrate": ["--images", "."], "export": ["--tflite", "m.tflite"]}.get(command, [])
    called = subprocess.run(
        [sys.executable, "-m", "finetune", command, "r.yaml", *options],
        cwd=tmp_path,
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert called.returncode == 2
    assert "error: KERAS_BACKEND: only finetune run and finetune evaluate compute on jax" in called.stderr
    assert "Traceback" not in called.stderr
