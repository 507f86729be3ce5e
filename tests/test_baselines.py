"""The probes against NumPy, and what they say of a backbone whose statistics belong to other images."""

import keras
import numpy as np
import pytest

from finetune.baselines import NEIGHBOURS, Labelled, probe
from finetune.probe_run import MEASURED, STORED, pooled_features, probe_features
from finetune.recipe_file import load_text


def clouds(count, seed, spread=1.0, classes=(0, 1, 2)):
    random = np.random.default_rng(seed)
    labels = random.choice(classes, count)
    centres = np.random.default_rng(9).normal(0, 2, (3, 5))
    return Labelled(centres[labels] + spread * random.normal(0, 1, (count, 5)), labels)


def nearest_by_hand(train, test, neighbours, classes):
    """Each of the nearest on the unit sphere weighs by the inverse of its distance."""
    on_sphere = [
        each.features / np.linalg.norm(each.features, axis=1, keepdims=True) for each in (train, test)
    ]
    apart = np.linalg.norm(on_sphere[1][:, None] - on_sphere[0][None], axis=2)
    predicted = []
    for distances in apart:
        order = np.argsort(distances)[:neighbours]
        votes = np.bincount(train.labels[order], 1 / distances[order], minlength=classes)
        predicted.append(votes.argmax())
    return np.mean(np.array(predicted) == test.labels)


def test_the_nearest_are_those_by_hand():
    train, validation, test = clouds(200, 0), clouds(60, 1), clouds(150, 2)
    probed = probe(train, validation, test, 3)
    assert probed.neighbours == NEIGHBOURS
    assert probed.nearest.metrics["accuracy"] == pytest.approx(nearest_by_hand(train, test, NEIGHBOURS, 3))
    assert 0.7 < probed.nearest.metrics["accuracy"] < 1


def test_the_linear_probe_does_not_depend_on_the_scale_of_a_channel():
    scale = np.array([1e-3, 1, 1e3, 5, 0.2])
    sets = clouds(200, 0), clouds(60, 1), clouds(150, 2)
    scaled = [Labelled(each.features * scale, each.labels) for each in sets]
    one, other = probe(*sets, 3), probe(*scaled, 3)
    assert one.linear.confusion == other.linear.confusion
    assert one.strength == other.strength
    # normal clouds of one spread have linear borders, which is as good as it gets
    centres = np.random.default_rng(9).normal(0, 2, (3, 5))
    best = np.linalg.norm(sets[2].features[:, None] - centres, axis=2).argmin(1) == sets[2].labels
    assert one.linear.metrics["accuracy"] > best.mean() - 0.04


def test_validation_chooses_a_weak_probe_where_labels_are_noise():
    random = np.random.default_rng(0)
    noise = [Labelled(random.normal(0, 1, (60, 40)), random.integers(0, 3, 60)) for _ in range(3)]
    assert probe(*noise, 3).strength == 0.01


def test_few_images_and_a_class_without_any():
    train = Labelled(clouds(5, 0, classes=(0, 2)).features, np.array([0, 2, 0, 2, 2]))
    probed = probe(train, clouds(30, 1), clouds(30, 2), 3)
    assert probed.neighbours == 5
    assert all(row[1] == 0 for row in (*probed.nearest.confusion, *probed.linear.confusion))


RECIPE = """
backbone: {source: bundled}
data:
  source: tfds
  name: fashion_shift
  train: "train[:200]"
  validation: "validation[:60]"
  test: "test[:200]"
  calibration: "calibration[:128]"
  shift: {kind: contrast, severity: 4}
batchnorm: {policy: freeze}
stages: [{train: head, epochs: 1, learning_rate: 0.1}]
"""


@pytest.fixture(scope="module")
def found():
    return probe_features(load_text(RECIPE))


def test_measured_statistics_repair_the_features_of_another_camera(found):
    assert list(found) == [STORED, MEASURED]
    assert found[STORED].linear.count == 200
    before, after = (found[each].nearest.metrics["accuracy"] for each in (STORED, MEASURED))
    assert after > before + 0.1


def test_the_stored_features_are_those_of_the_backbone_as_it_comes(found):
    recipe = load_text(RECIPE)
    splits = recipe.data.load(56, 0)
    built = recipe.backbone.build(56)
    images, labels = next(iter(splits.test.examples.batch(200)))
    by_hand = np.asarray(built.model(built.preprocess(np.asarray(images, np.float32)), training=False)).mean(
        (1, 2)
    )
    pooled = pooled_features(built, 56).predict(images, verbose=0)
    np.testing.assert_allclose(pooled, by_hand, atol=1e-5)
    assert labels.shape == (200,)


def test_a_backbone_without_sites_has_one_row(tmp_path):
    inputs = keras.Input((12, 12, 3))
    keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs)).save(tmp_path / "plain.keras")
    text = RECIPE.replace("{source: bundled}", f"{{source: saved, path: {tmp_path}/plain.keras}}")
    assert list(probe_features(load_text(text))) == [STORED]
