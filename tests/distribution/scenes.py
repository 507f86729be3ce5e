"""What one process and several do alike: run by the tests, and by each worker in a process of its own."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext

COUNT, BATCH = 96, 24
CALIBRATION, SAMPLES, MEASURED = 40, 37, 8
"""Images of the calibration set, those that are measured, those in a batch: five batches, the last one of five."""


def everything(replicas):
    """Plain arrays by name."""
    found = {}
    for name, options in TRAININGS.items():
        found |= {f"{name}/{key}": value for key, value in trained(replicas, **options).items()}
    found |= normalised(replicas)
    for method in ("layerwise", "one_pass"):
        found |= {f"{method}/{key}": value for key, value in measured(replicas, method).items()}
    return found


def network():
    """Four sites in depth, no dropout: each replica would draw masks of its own."""
    import keras

    from finetune.batchnorm.sites import find_sites
    from finetune.trained_part import Trainee
    from tests.nets import functional_net, images

    # built by hand and not read from a file: names, seeds and all are the same in every process
    inner = functional_net()
    for layer in inner.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    x = keras.layers.BatchNormalization(name="bn_4")(keras.layers.Dense(4, name="more")(inner.outputs[0]))
    model = keras.Model(inner.input, keras.layers.Dense(3, activation="softmax", name="head")(x))
    return Trainee(model, model, find_sites(model, images(1)))


def pictures(count):
    """The shares of every batch differ in brightness and contrast, so that their moments do."""
    import numpy as np

    from tests.nets import images

    x = images(count)
    third = np.arange(count) % BATCH // (BATCH // 3)
    return (x * (1 + third)[:, None, None, None] + third[:, None, None, None]).astype(np.float32)


def batches(count=COUNT, size=BATCH):
    import numpy as np
    import tensorflow as tf

    from tests.nets import labels

    answers = labels(count).astype(np.int32)
    examples = tf.data.Dataset.from_tensor_slices((pictures(count), answers))
    # the order of the images is part of what has to be the same
    return examples.shuffle(size, seed=3, reshuffle_each_iteration=True).batch(size, drop_remainder=True)


def validation():
    import numpy as np
    import tensorflow as tf

    from tests.nets import labels

    return tf.data.Dataset.from_tensor_slices((pictures(50), labels(50).astype(np.int32))).batch(11)


# of the second one the sites are left to themselves; no Adam: it makes full steps of the rounding that is the gradient
# of a bias in front of a site
TRAININGS = {
    "together": {
        "options": {
            "weight_decay": 0.01,
            "label_smoothing": 0.1,
            "ema": 0.8,
            "rate_at_first_layer": 0.5,
        },
        "weights": {0: 0.5, 1: 1.0, 2: 2.0},
    },
    "apart": {"options": {"accumulate": 2}},
}


def trained(replicas, options, weights=None):
    """Two epochs of a training; weights, logs, and what every replica held in the end."""
    import numpy as np

    from finetune.batchnorm.sites import synchronised
    from finetune.orders import Orders
    from finetune.policies import Retrain
    from finetune.progress import Progress
    from finetune.stage import Stage
    from finetune.train import Material, fit_stage

    trainee, logs = network(), []
    stage = Stage(train="everything", epochs=2, learning_rate=0.02, **options)
    material = Material(
        Orders(batches()),
        validation(),
        COUNT // BATCH,
        BATCH,
        3,
        weights,
        calibration(replicas),
        replicas=replicas,
    )
    at = synchronised(trainee.sites) if weights and replicas.count > 1 else nullcontext()
    with at:
        fit_stage(
            trainee,
            Retrain(),
            stage,
            "",
            material,
            Progress(),
            lambda epoch, metrics: logs.append(dict(metrics)),
        )
    held = replicas.statistics(trainee.sites)
    return {
        "weights": np.concatenate([weight.numpy().ravel() for weight in trainee.model.weights]),
        "logs": np.array([list(epoch.values()) for epoch in logs]),
        "held": np.array([np.concatenate([np.r_[s.mean, s.variance] for s in each]) for each in held]),
    }


def far_from_zero():
    """Inputs of a site, what it is differentiated against, gamma and beta, a running mean that is off by one."""
    import numpy as np

    random = np.random.default_rng(5)
    x = random.normal(300.0, 1.0, (12, 3, 2, 5)) + np.arange(12)[:, None, None, None] / 4
    return (
        x,
        random.normal(size=x.shape),
        random.uniform(0.5, 1.5, 5),
        random.normal(size=5),
        np.full(5, 301.0),
    )


def normalised(replicas):
    """Outputs, moments and gradients of one site on shares of a batch."""
    import numpy as np
    import tensorflow as tf

    from finetune.batchnorm.shared_kernel import normalise_with_all_shares

    x, upstream, gamma, beta, around = (tf.constant(v, tf.float32) for v in far_from_zero())

    def replica():
        context = tf.distribute.get_replica_context()
        each = len(x) // replicas.count
        place = int(tf.get_static_value(context.replica_id_in_sync_group))
        mine = [v[place * each : (place + 1) * each] for v in (x, upstream)]
        values = [mine[0], gamma, beta]
        with tf.GradientTape() as tape:
            tape.watch(values)
            outputs, mean, variance = normalise_with_all_shares(*values, 1e-3, around)
            loss = tf.reduce_sum(outputs * mine[1])
        of_x, *of_affine = tape.gradient(loss, values)
        shares = [context.all_gather(v, axis=0) for v in (outputs, of_x)]
        return [shares[0], mean, variance, shares[1], *context.all_reduce("SUM", of_affine)]

    if replicas.strategy is None:
        return {}
    together = tf.function(lambda: replicas.strategy.run(replica), autograph=False)()
    first = [replicas.strategy.experimental_local_results(v)[0].numpy() for v in together]
    names = ("outputs", "mean", "variance", "of_inputs", "of_gamma", "of_beta")
    return {f"site/{name}": np.asarray(value) for name, value in zip(names, first, strict=True)}


def calibration(replicas):
    import tensorflow as tf

    from finetune.distribution.shares import SharedImages

    images = pictures(CALIBRATION)

    def opened(limit):
        return tf.data.Dataset.from_tensor_slices(images[:limit]).batch(MEASURED)

    return SharedImages(opened, CALIBRATION, MEASURED, replicas)


def measured(replicas, method):
    """Running statistics measured anew through a policy, and the moments behind them."""
    import numpy as np

    from finetune.batchnorm.population import input_moments
    from finetune.policies import Recalibrate

    trainee, images = network(), calibration(replicas)
    policy = Recalibrate(method=method, samples=SAMPLES, prior=20.0)
    own, _ = input_moments(trainee.model, trainee.sites, images(SAMPLES))
    moments = images.combine(SAMPLES)(own)
    measurement = policy.start(trainee.model, trainee.sites, images)
    return {
        "images": np.array(measurement.images),
        "stored": np.concatenate([np.r_[s.statistics.mean, s.statistics.variance] for s in trainee.sites]),
        "moments": np.concatenate([np.r_[m.count, m.mean, m.variance] for m in moments]),
    }


def whole_runs(replicas, place):
    """`finetune run` twice on these replicas, in `place`; in the second the sites are left to themselves.

    What was found, and what each said in the end; the processes of a run share a folder, as they would a file system.
    """
    import numpy as np

    import finetune.run as story
    import finetune.training
    from finetune.errors import ProofError
    from finetune.recipe_file import load_text

    # a strategy is opened once a process
    story.open_replicas = lambda *_, **__: replicas
    recipe = load_text((place / "recipe.yaml").read_text(), source="recipe")
    result = story.run(recipe, runs_folder=place / "runs")
    finetune.training.synchronised = lambda sites: nullcontext()
    try:
        said = "nothing was wrong"
        story.run(recipe.model_copy(update={"name": "apart"}), runs_folder=place / "runs")
    except ProofError as error:
        said = str(error)
    return {
        "run/folder": np.array(str(result.folder.relative_to(place))),
        "run/checks": np.array([f"{check.name}: {check.passed}" for check in result.checks]),
        "run/test": np.array(list(result.test.metrics.values())),
        "run/apart": np.array(said),
    }


def write_recipe(place):
    """A network of two sites in depth and its data, for `whole_runs`."""
    import numpy as np

    from finetune.datasets.array_file import save_arrays
    from tests.nets import tiny_backbone

    tiny_backbone().save(place / "backbone.keras")
    random = np.random.default_rng(0)
    classes = random.integers(0, 3, 160)
    spread = random.uniform(0.3, 1.2, (160, 1, 1, 1))
    pixels = random.normal(60 + 60 * classes[:, None, None, None], 40, (160, 12, 12, 3)) * spread
    save_arrays(place / "data.npz", (np.clip(pixels, 0, 255).astype(np.uint8), classes))
    recipe = {
        "name": "small",
        "backbone": {"source": "saved", "path": str(place / "backbone.keras")},
        "data": {"source": "arrays", "path": str(place / "data.npz"), "image_size": 12, "batch_size": 32},
        "batchnorm": {"policy": "retrain"},
        "stages": [{"train": "everything", "epochs": 2, "learning_rate": 0.05}],
        "tracking": {"enabled": False},
    }
    (place / "recipe.yaml").write_text(json.dumps(recipe))


def main(distribute, out):
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    import numpy as np
    import tensorflow as tf

    from finetune.distribute import Distribute
    from finetune.distribution.replicas import ALONE, open_replicas

    if "devices" in distribute:
        [cpu] = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * len(distribute["devices"])
        )
        np.savez(out.with_name("alone.npz"), **everything(ALONE))
    replicas = open_replicas(Distribute.model_validate_json(json.dumps(distribute)))
    found = everything(replicas)
    if replicas.workers == 2:
        found |= whole_runs(replicas, out.parent)
    np.savez(out, **found)
    # as a run does: who leaves first is taken for lost
    replicas.told("done")
