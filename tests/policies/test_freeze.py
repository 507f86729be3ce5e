"""`freeze` where a walk over `model.layers` would freeze 2 of 65 sites."""

import keras
import numpy as np
from keras.layers import BatchNormalization

from finetune.assemble import assemble
from finetune.backbones.keras_cv import KerasCV
from finetune.batchnorm import proof
from finetune.batchnorm.sites import find_sites
from finetune.batchnorm.timeline import Timeline, read
from finetune.heads.linear import Linear
from finetune.policies import Freeze

SIDE = 32


def test_all_65_sites_of_an_efficientnetv2_are_frozen_and_proven():
    keras.utils.set_random_seed(0)
    built = KerasCV(name="efficientnetv2_b0", weights=None).build(SIDE)
    model = assemble(built, Linear(), ("a", "b"), SIDE)
    images = np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3)).astype(np.float32)
    sites = find_sites(model, images[:1])
    found_by_a_walk = [layer for layer in built.model.layers if isinstance(layer, BatchNormalization)]
    assert (len(sites), sum(site.built for site in sites), len(found_by_a_walk)) == (65, 59, 2)
    before = read(sites)
    Freeze().prepare(sites, trained=sites, steps_per_epoch=1)
    assert not any(site.layer.trainable for site in sites)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(images, np.array([0, 1, 0, 1]), verbose=0)
    after = read(sites)
    timeline = Timeline(before, before, after, after, None, None, frozenset())
    checks = proof.check(Freeze().promises(sites), timeline, sites, model, images)
    assert [check for check in checks if not check.passed] == []
    assert (
        checks[0].detail
        == "59 sites found, 59 reached; 6 more layers are never called and hold no statistics"
    )
