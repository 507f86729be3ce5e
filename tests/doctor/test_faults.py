"""Every planted fault is found by its name, and healthy networks have nothing serious."""

import numpy as np
import pytest

from finetune.doctor.finding import ORDER
from finetune.doctor_run import examine
from tests.doctor.planting import FAULTS, NEED_IMAGES, healthy
from tests.nets import NETS, functional_net, photographs

SERIOUS = {
    "broken-statistics",
    "baked-training-true",
    "changes-when-called",
    "changed-after-compile",
    "depends-on-batch-mates",
    "random-predictions",
    "preprocessing",
    "short-horizon",
    "few-positions",
}


def seen(case, images=True):
    return examine(case.model, *((case.images, case.labels) if images else ()), **case.given)


def weights_of(model):
    """But for the counters of dropout's seeds, which count every draw."""
    return [np.array(weight) for weight in model.weights if "seed_generator" not in weight.path]


def flags_of(model):
    return [layer.trainable for layer in model._flatten_layers()]


@pytest.fixture(scope="module")
def kinds_before():
    """What is said of the network that the faults are planted in."""
    return {finding.kind for finding in seen(healthy(functional_net(), photographs(64))).findings}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_found_and_the_model_is_afterwards_as_it_was(name, kinds_before):
    kind, plant = FAULTS[name]
    case = healthy(functional_net(), photographs(64))
    plant(case)
    weights, flags = weights_of(case.model), flags_of(case.model)
    found = {finding.kind: finding for finding in seen(case, kind in NEED_IMAGES).findings}
    assert kind in found
    assert (found[kind].severity == "serious") >= (kind in SERIOUS)
    assert kind not in kinds_before or kind == "mixed-momentum"
    assert flags_of(case.model) == flags
    for before, after in zip(weights, weights_of(case.model), strict=True):
        np.testing.assert_array_equal(before, after)


def test_there_are_at_least_twenty_faults():
    assert len(FAULTS) >= 20


@pytest.mark.parametrize("kind", NETS)
def test_healthy_networks_have_nothing_serious(kind):
    diagnosis = seen(healthy(NETS[kind](), photographs(64)))
    assert [finding.kind for finding in diagnosis.findings if finding.severity == "serious"] == []
    assert not diagnosis.serious
    assert diagnosis.gap.running == diagnosis.gap.fresh == 1.0


def test_the_serious_come_first_and_every_finding_says_what_to_do():
    case = healthy(functional_net(), photographs(64))
    for name in (
        "a stray training=True inside a custom layer moves statistics",
        "one site with another momentum",
    ):
        FAULTS[name][1](case)
    findings = seen(case).findings
    assert [f.severity for f in findings] == sorted((f.severity for f in findings), key=ORDER.index)
    assert all(finding.measured and finding.why and finding.fix for finding in findings)


def test_rounding_between_batch_sizes_is_no_dependence_on_batch_mates():
    from finetune.doctor.company import company

    def rounding(images):
        noise = 1e-4 * np.sin(len(images))
        return np.mean(images, axis=(1, 2)) + noise

    assert list(company(rounding, photographs(16) + 5.0, "MODEL")) == []


def test_a_dependence_smaller_than_rounding_is_not_claimed_and_a_larger_one_is():
    from finetune.doctor.company import company

    def dependent(size):
        return lambda images: np.mean(images, axis=(1, 2)) + size * images.mean()

    [finding] = company(dependent(0.1), photographs(16) + 5.0, "MODEL")
    assert finding.kind == "depends-on-batch-mates"
    assert list(company(dependent(1e-9), photographs(16) + 5.0, "MODEL")) == []
