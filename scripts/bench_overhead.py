"""What `finetune run` costs beside the same training written by hand with `model.fit`.

Both sides alternate in one process: the same images, network, stages, optimizers and validation. "training" compares
the time inside the stages; "whole" everything from the recipe to the last file, where `finetune run` also proves the
policy, measures reference statistics, exports a checked SavedModel, writes the report and fills MLflow, and the
hand-written script evaluates and saves `model.keras`. That extra work does not grow with the training.

    uv run python scripts/bench_overhead.py --rounds 3
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median

# as the command line does, read when TensorFlow is imported (finetune/cli/quiet.py)
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import tensorflow as tf

from finetune.recipe import Recipe
from finetune.recipe_file import load_recipe
from finetune.run import run

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "resnet_freeze.yaml"


def main() -> None:
    options = arguments()
    recipe = load_recipe(RECIPE, options.set)
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{folder}/mlflow.db"
        for number in range(options.rounds + 1):
            keras.backend.clear_session()
            hand = by_hand(recipe, Path(folder))
            keras.backend.clear_session()
            begun = time.perf_counter()
            result = run(recipe, runs_folder=Path(folder) / "runs", tracking_uri=store)
            ours = (result.seconds["training"], time.perf_counter() - begun)
            # the first round makes MLflow's database and warms the caches of both
            if number:
                rounds.append((*hand, *ours))
                print(
                    "by hand {:.1f} s training, {:.1f} s whole; finetune {:.1f} s, {:.1f} s".format(
                        *rounds[-1]
                    )
                )
    report("training", [(row[0], row[2]) for row in rounds])
    report("whole", [(row[1], row[3]) for row in rounds])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], help="as in finetune run: stages.1.epochs=20")
    return parser.parse_args()


def report(what: str, pairs: list[tuple[float, float]]) -> None:
    ratios = sorted(ours / hand for hand, ours in pairs)
    more = median(ours - hand for hand, ours in pairs)
    print(f"{what}: {median(ratios):.3f} x ({ratios[0]:.3f} to {ratios[-1]:.3f}), {more:+.1f} s")


def by_hand(recipe: Recipe, folder: Path) -> tuple[float, float]:
    """Seconds inside `fit`, and from the data to the saved model: what a person would write."""
    begun = time.perf_counter()
    keras.utils.set_random_seed(recipe.seed)
    splits = recipe.data.load(recipe.backbone.default_image_size, recipe.seed)
    batch = recipe.data.batch_size
    training = splits.train.examples.shuffle(splits.train.count, seed=recipe.seed)
    training = training.batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
    validation, test = (s.examples.batch(128).prefetch(2) for s in (splits.validation, splits.test))
    built = recipe.backbone.build(splits.image_size)
    inputs = keras.Input((splits.image_size, splits.image_size, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(built.model(inputs))
    model = keras.Model(inputs, keras.layers.Dense(len(splits.class_names), activation="softmax")(pooled))
    seconds = 0.0
    for stage in recipe.stages:
        choose_trainable(built.model, trainable=stage.train == "everything")
        steps = splits.train.count // batch * stage.epochs
        rate = keras.optimizers.schedules.CosineDecay(
            0.0, int(0.9 * steps), warmup_target=stage.learning_rate, warmup_steps=int(0.1 * steps)
        )
        optimizer = keras.optimizers.SGD(rate, momentum=0.9)
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        fitting = time.perf_counter()
        model.fit(training, validation_data=validation, epochs=stage.epochs, verbose=0)
        seconds += time.perf_counter() - fitting
    model.evaluate(test, verbose=0)
    model.save(folder / "by_hand.keras")
    return seconds, time.perf_counter() - begun


def choose_trainable(backbone: keras.Model, *, trainable: bool) -> None:
    for layer in backbone._flatten_layers():
        layer.trainable = trainable and not isinstance(layer, keras.layers.BatchNormalization)


if __name__ == "__main__":
    main()
