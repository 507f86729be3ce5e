"""A network fine-tuned with frozen statistics, then a darker camera: plain measuring ruins it, matched restores it."""

import numpy as np
import pytest

from finetune.batchnorm.measure import residual
from tests.trained_service import TEST


def test_the_weights_moved_under_the_statistics(service):
    assert service.accuracy(service.fog) > 0.5
    assert residual(service.model, service.sites, [service.fog[:2048]]) > 0.5


@pytest.mark.parametrize("method", ["layerwise", "one_pass"])
def test_matched_restores_the_darkened_camera_within_a_point_and_plain_ruins_it(service, method):
    in_service = service.accuracy(service.fog)
    assert service.accuracy(service.dark) < in_service - 0.1
    matched = service.after_measuring(service.dark, reference=service.reference, method=method)
    plain = service.after_measuring(service.dark, method=method)
    assert abs(matched - in_service) <= 0.01
    assert plain < in_service - 0.05


def test_where_nothing_changed_matched_stays_below_sampling_noise_and_plain_does_not(service):
    in_service = service.accuracy(service.fog)
    noise = np.sqrt(in_service * (1 - in_service) / (TEST.stop - TEST.start))
    assert abs(service.after_measuring(service.fog, reference=service.reference) - in_service) < noise
    assert service.after_measuring(service.fog) < in_service - 3 * noise
