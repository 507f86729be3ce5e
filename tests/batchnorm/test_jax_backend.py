"""The engine and the policies under `KERAS_BACKEND=jax`, in one process that cannot import TensorFlow.

The laws are those that the other tests state on TensorFlow, against the same float64 network.
"""

import os
import subprocess
import sys
from pathlib import Path

from finetune.policies import POLICIES

ROOT = Path(__file__).resolve().parents[2]

# None in sys.modules makes every import of that name raise ModuleNotFoundError
WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = None
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""

PROVEN = "contracts/test_policies.py::test_a_policy_carried_out_is_proven_and_gives_back_what_it_borrowed"
HANDED_ON = "batchnorm/test_matching.py::test_every_site_of_a_live_network_hands_on_its_reference_moments"
CASES = [
    *(f"{policy().policy}-functional" for policy in POLICIES),
    "rules: affine, retrain-nested",
    "retrain, a frozen epoch-nested",
]

LAWS = (
    "batchnorm/jax_laws.py",
    "batchnorm/test_sites.py::test_every_called_site_is_found_once[nested]",
    "batchnorm/test_sites.py::test_following_sites_move_with_the_momentum_given[functional]",
    "batchnorm/test_population.py::test_one_pass_equals_the_float64_network_site_by_site[sizes1]",
    "batchnorm/test_population.py::test_input_moments_equal_the_float64_network_site_by_site",
    "batchnorm/test_population.py::test_masked_steps_do_not_count",
    "batchnorm/test_population.py::test_data_that_differ_between_the_passes_leave_a_residual",
    "policies/test_recalibrate.py::test_the_prior_weighs_pretrained_statistics_as_so_many_images[40.0]",
    f"{HANDED_ON}[functional-layerwise]",
    f"{HANDED_ON}[custom_layer-one_pass]",
    "batchnorm/test_proof.py::test_one_bit_in_one_site_is_enough",
    "contracts/test_policies.py::test_the_proof_names_what_another_policy_did_instead[freeze]",
    *(f"{PROVEN}[{case}]" for case in CASES),
)


def test_the_laws_hold_under_jax_without_tensorflow():
    # in one process: a worker of its own would not know that TensorFlow is not there
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, "-p", "no:cacheprovider", "-q", "--numprocesses=0"]
    # networks as small as these take longer to optimise than to run
    settings = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    outcome = subprocess.run(
        [*command, *(f"tests/{law}" for law in LAWS)],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
