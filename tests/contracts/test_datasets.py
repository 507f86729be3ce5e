"""What every dataset owes: four splits as promised, whatever the source."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from finetune.datasets import DATASETS, AnyDataset, Arrays, ImageFolder, ImageTable, TensorFlowDatasets
from finetune.datasets.array_file import save_arrays
from finetune.datasets.base import SPLIT_NAMES
from finetune.errors import DataError
from tests.datasets.conftest import tiny_dir  # noqa: F401
from tests.datasets.pictures import pairs, two_classes


@pytest.fixture(params=DATASETS, ids=lambda made: made.__name__)
def make(request, tmp_path):
    """A small dataset of each source, with whatever keys a recipe may add."""
    known = {
        TensorFlowDatasets: tiny_shapes,
        ImageFolder: cats_and_dogs,
        ImageTable: listed_cats_and_dogs,
        Arrays: kept_cats_and_dogs,
    }
    return known[request.param](request, tmp_path)


def tiny_shapes(request, tmp_path):
    place = request.getfixturevalue("tiny_dir")
    own = {"name": "tiny_shapes", "data_dir": place, "train": "train[:20]", "validation": "train[20:]"}
    return lambda **keys: TensorFlowDatasets(**own, **keys)


def cats_and_dogs(request, tmp_path):
    two_classes(tmp_path)
    return lambda **keys: ImageFolder(path=str(tmp_path), **keys)


def listed_cats_and_dogs(request, tmp_path):
    two_classes(tmp_path)
    rows = [f"{file.relative_to(tmp_path)},{file.parent.name}" for file in sorted(tmp_path.rglob("*.png"))]
    (tmp_path / "all.csv").write_text("\n".join(["path,label", *rows]))
    return lambda **keys: ImageTable(path=str(tmp_path / "all.csv"), **keys)


def kept_cats_and_dogs(request, tmp_path):
    two_classes(tmp_path)
    files = sorted(tmp_path.rglob("*.png"))
    images = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    names = sorted({file.parent.name for file in files})
    labels = np.array([names.index(file.parent.name) for file in files])
    save_arrays(tmp_path / "all.npz", (images, labels), class_names=names)
    return lambda **keys: Arrays(path=str(tmp_path / "all.npz"), **keys)


def splits_of(loaded):
    return {name: getattr(loaded, name) for name in SPLIT_NAMES}


def test_there_are_four_sources():
    assert [made.model_fields["source"].default for made in DATASETS] == [
        "tfds",
        "image_folder",
        "image_table",
        "arrays",
    ]


def test_a_recipe_tells_them_apart_by_source():
    read = TypeAdapter(AnyDataset).validate_python
    assert isinstance(read({"source": "tfds", "name": "fashion_shift"}), TensorFlowDatasets)
    assert isinstance(read({"source": "image_folder", "path": "photos"}), ImageFolder)
    with pytest.raises(ValidationError):
        read({"source": "zip", "path": "photos"})


def test_reading_a_recipe_imports_nothing_heavy():
    heavy = ("tensorflow", "tensorflow_datasets", "keras", "keras_cv", "numpy", "PIL")
    code = f"import sys, finetune.datasets; print([name for name in {heavy} if name in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_examples_are_square_uint8_rgb_with_int32_labels_as_many_as_counted(make):
    for name, split in splits_of(make().load(12, 0)).items():
        assert split.name == name
        assert split.examples.element_spec == (
            tf.TensorSpec((12, 12, 3), tf.uint8),
            tf.TensorSpec((), tf.int32),
        )
        assert len(list(split.examples)) == split.count == split.examples.cardinality()


def test_no_image_is_in_two_of_train_validation_and_test(make):
    loaded = make().load(8, 0)
    seen = [number for name in ("train", "validation", "test") for number, _ in pairs(getattr(loaded, name))]
    assert len(seen) == len(set(seen))


def test_loading_twice_gives_the_same_images_in_the_same_order(make):
    one, two = make().load(8, 5), make().load(8, 5)
    assert one.digest == two.digest
    for first, second in zip(splits_of(one).values(), splits_of(two).values(), strict=True):
        assert pairs(first) == pairs(second)


def test_a_shift_reaches_every_split_and_leaves_labels_and_order_alone(make):
    plain, shifted = make().load(8, 0), make(shift={"kind": "invert"}).load(8, 0)
    assert plain.digest != shifted.digest
    for before, after in zip(splits_of(plain).values(), splits_of(shifted).values(), strict=True):
        assert pairs(after) == [(255 - number, label) for number, label in pairs(before)]
        assert after.description == f"{before.description}, invert 3"


def test_the_digest_follows_the_size(make):
    assert make().load(8, 0).digest != make().load(12, 0).digest


def test_the_shift_happens_before_the_resize(make):
    # noise added at 8 px and enlarged is smooth, added at 64 px it is not
    image, _ = next(iter(make(shift={"kind": "noise"}).load(64, 0).train.examples))
    channel = np.asarray(image, float)[..., 0]
    assert np.abs(np.diff(channel, axis=0)).mean() < 0.4 * channel.std()


def test_wrong_augmentation_is_said_when_the_data_is_opened(make):
    with pytest.raises(DataError, match="RandomFlip has no option 'moed'"):
        make(augment=({"layer": "RandomFlip", "options": {"moed": 1}},)).load(8, 0)


def test_class_names_belong_to_the_labels(make):
    loaded = make().load(8, 0)
    assert len(loaded.class_names) == 2
    assert {label for _, label in pairs(loaded.train)} == {0, 1}


def numbers(split):
    return [number for number, _ in pairs(split)]


def test_over_the_seeds_every_image_is_validated_once(make):
    whole, folds = make().load(8, 0), [make(folds=3).load(8, seed) for seed in range(3)]
    pooled = sorted(numbers(whole.train) + numbers(whole.validation))
    assert sorted(number for fold in folds for number in numbers(fold.validation)) == pooled
    for fold in folds:
        assert sorted(numbers(fold.train) + numbers(fold.validation)) == pooled
        assert fold.train.count == len(numbers(fold.train)) == fold.train.examples.cardinality()
        assert pairs(fold.test) == pairs(whole.test)
        # the calibration set was the training images, and no fold calibrates on what it validates on
        assert numbers(fold.calibration) == numbers(fold.train)
    assert len({fold.digest for fold in folds} | {whole.digest}) == 4


def test_folds_have_as_many_of_each_class_but_for_one(make):
    folds = [make(folds=3).load(8, seed) for seed in range(3)]
    counts = np.array([np.bincount([label for _, label in pairs(fold.validation)]) for fold in folds])
    assert (np.ptp(counts, axis=0) <= 1).all()
    assert np.ptp(counts.sum(axis=1)) <= 1


def test_seeds_beyond_the_folds_begin_again(make):
    assert pairs(make(folds=3).load(8, 4).validation) == pairs(make(folds=3).load(8, 1).validation)


def test_few_images_of_each_class_and_all_of_them_to_calibrate_on(make):
    whole, some = make().load(8, 0), make(examples_per_class=4).load(8, 0)
    assert np.bincount([label for _, label in pairs(some.train)]).tolist() == [4, 4]
    assert set(pairs(some.train)) < set(pairs(whole.train))
    assert pairs(some.calibration) == pairs(whole.calibration)
    assert pairs(some.validation) == pairs(whole.validation)
    assert some.train.count == some.train.examples.cardinality() == 8
    assert some.digest != whole.digest


def test_another_seed_draws_other_few_images(make):
    one, same, other = (make(folds=3, examples_per_class=3).load(8, seed) for seed in (0, 0, 3))
    assert pairs(one.train) == pairs(same.train)
    assert pairs(one.validation) == pairs(other.validation)
    assert sorted(pairs(one.train)) != sorted(pairs(other.train))


def test_more_than_a_class_has_is_refused(make):
    with pytest.raises(
        DataError, match=r"data.examples_per_class: expected at least 50 training images of every"
    ):
        make(examples_per_class=50).load(8, 0)
    with pytest.raises(
        DataError, match=r"data.folds: expected at least 40 training and validation images of every"
    ):
        make(folds=40).load(8, 0)
