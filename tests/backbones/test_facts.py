"""What `finetune list backbones` says of a network, against the network itself."""

import numpy as np
import pytest

from finetune.backbones import BACKBONES, EfficientNetLite, KerasApplications, KerasCV
from finetune.backbones.facts import facts
from finetune.batchnorm.sites import find_sites

SIDE = 64


def test_every_name_of_every_source_has_its_row():
    known = facts()
    for source in BACKBONES:
        name = source.model_fields["source"].default
        assert tuple(known.get(name, {})) == source.names()


@pytest.mark.parametrize(
    "backbone",
    [
        EfficientNetLite(weights=None),
        KerasCV(name="mobilenet_v3_small", weights=None),
        KerasCV(name="mit_b0", weights=None),
        KerasApplications(name="MobileNetV2", weights=None),
        KerasApplications(name="ConvNeXtTiny", weights=None),
    ],
    ids=lambda backbone: backbone.name,
)
def test_the_row_is_that_of_the_network(backbone):
    model = backbone.build(SIDE).model
    sites = find_sites(model, np.zeros((1, SIDE, SIDE, 3), np.float32))
    row = facts()[backbone.source][backbone.name]
    assert row["sites"] == len(sites)
    assert row["channels"] == sum(site.channels for site in sites)
    assert row["momentum"] == sorted({site.momentum for site in sites})
    assert row["epsilon"] == sorted({site.epsilon for site in sites})
    counted = sum(int(np.prod(v.shape)) for v in model.weights if "seed_generator" not in v.path)
    assert row["parameters"] == counted
    assert row["image_size"] == backbone.default_image_size
