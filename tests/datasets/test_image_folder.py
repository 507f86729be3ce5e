"""Pictures in folders: who goes where, and what is said about folders that do not fit."""

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from finetune.datasets import ImageFolder
from finetune.datasets.picture_files import Fractions
from finetune.errors import DataError
from tests.datasets.pictures import SIDE, numbers, pairs, two_classes, write_folder

SPLITS = ("train", "validation", "test")


def load(root, seed=0, **keys):
    return ImageFolder(path=str(root), **keys).load(SIDE, seed)


def problems(root, **keys):
    with pytest.raises(DataError) as caught:
        load(root, **keys)
    return list(caught.value.problems)


def by_folders(root, *, without=()):
    """Two classes in each of three splits; grey values tell all images apart."""
    names = [f"{split}/{name}/{n}.png" for split in SPLITS for name in ("cat", "dog") for n in range(3)]
    return write_folder(
        root, {name: n for n, name in enumerate(names) if not name.startswith(tuple(without))}
    )


def test_fractions_divide_every_class_alike(tmp_path):
    splits = load(two_classes(tmp_path, cats=10, dogs=20), fractions={"validation": 0.2, "test": 0.1})
    labels = [np.bincount([label for _, label in pairs(getattr(splits, name))]).tolist() for name in SPLITS]
    assert labels == [[7, 14], [2, 4], [1, 2]]
    assert splits.class_names == ("cat", "dog")


def test_every_image_is_in_one_split_with_the_label_of_its_folder(tmp_path):
    splits = load(two_classes(tmp_path), fractions={"calibration": 0.2})
    seen = [pair for name in (*SPLITS, "calibration") for pair in pairs(getattr(splits, name))]
    assert sorted(seen) == [(n, 0) for n in range(10)] + [(100 + n, 1) for n in range(20)]


def test_the_seed_decides_who_goes_where(tmp_path):
    two_classes(tmp_path)
    assert numbers(load(tmp_path, seed=1).test) == numbers(load(tmp_path, seed=1).test)
    assert set(numbers(load(tmp_path, seed=1).test)) != set(numbers(load(tmp_path, seed=2).test))


def test_a_small_class_still_has_an_image_in_every_split(tmp_path):
    splits = load(two_classes(tmp_path, cats=3, dogs=30))
    assert all(0 in {label for _, label in pairs(getattr(splits, name))} for name in SPLITS)


def test_the_first_images_are_a_mixture_of_the_classes(tmp_path):
    splits = load(two_classes(tmp_path, cats=40, dogs=40))
    assert {label for _, label in pairs(splits.calibration)[:12]} == {0, 1}


def test_folders_divide_where_they_are_named_after_splits(tmp_path):
    splits = load(by_folders(tmp_path))
    assert [sorted(numbers(getattr(splits, name))) for name in SPLITS] == [
        list(range(6)),
        list(range(6, 12)),
        list(range(12, 18)),
    ]
    assert numbers(splits.calibration) == numbers(splits.train)


def test_a_calibration_folder_is_used(tmp_path):
    write_folder(by_folders(tmp_path), {"calibration/cat/a.png": 50, "calibration/dog/b.png": 51})
    assert sorted(numbers(load(tmp_path).calibration)) == [50, 51]


def test_a_class_may_be_called_train(tmp_path):
    write_folder(
        tmp_path, {f"{name}/{n}.png": 10 * k + n for k, name in enumerate(("bus", "train")) for n in range(5)}
    )
    assert load(tmp_path).class_names == ("bus", "train")


def test_pictures_of_all_kinds_come_out_as_rgb(tmp_path):
    two_classes(tmp_path)
    Image.new("RGBA", (4, 9), (0, 0, 0, 0)).save(tmp_path / "cat" / "clear.png")
    Image.new("CMYK", (9, 4)).save(tmp_path / "dog" / "print.jpg")
    Image.fromarray(np.full((5, 5), 65535, np.uint16)).save(tmp_path / "dog" / "deep.PNG")
    splits = load(tmp_path)
    images = [image for name in SPLITS for image, _ in getattr(splits, name).examples.as_numpy_iterator()]
    assert len(images) == 33
    assert {image.shape for image in images} == {(SIDE, SIDE, 3)}
    assert sum(image.min() == 255 for image in images) == 3


def test_the_digest_follows_the_content_of_the_files(tmp_path):
    before = load(two_classes(tmp_path)).digest
    assert load(tmp_path).digest == before
    write_folder(tmp_path, {"cat/0.png": 99})
    assert load(tmp_path).digest != before


def test_hidden_files_are_passed_over_and_other_files_are_mentioned(tmp_path):
    two_classes(tmp_path)
    (tmp_path / "cat" / ".DS_Store").write_text("x")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("x")
    splits = load(tmp_path)
    assert splits.class_names == ("cat", "dog")
    assert splits.notes == ("left out, because their names are not those of images: cat/notes.txt",)


def test_the_same_file_in_train_and_test_is_mentioned(tmp_path):
    write_folder(by_folders(tmp_path), {"test/dog/copy.png": 0})
    assert load(tmp_path).notes == ("test/dog/copy.png in test is in train too",)


def test_nothing_is_said_about_data_that_is_in_order(tmp_path):
    splits = load(two_classes(tmp_path))
    assert splits.notes == ()
    assert splits.licence is None


def test_corrupt_images_are_all_named_and_not_left_out_unasked(tmp_path):
    two_classes(tmp_path)
    (tmp_path / "cat" / "bad.png").write_bytes(b"no picture")
    whole = (tmp_path / "dog" / "0.png").read_bytes()
    (tmp_path / "dog" / "0.png").write_bytes(whole[: len(whole) // 2])
    assert problems(tmp_path) == [
        "data.path: cat/bad.png, dog/0.png cannot be read as images; "
        "repair or remove, or write skip_corrupt: true"
    ]


def test_of_many_corrupt_images_ten_are_named_and_all_are_counted(tmp_path):
    two_classes(tmp_path)
    for n in range(13):
        (tmp_path / "cat" / f"bad{n:02}.png").write_bytes(b"")
    (line,) = problems(tmp_path)
    assert "cat/bad09.png and 3 more cannot be read" in line
    assert "bad10" not in line


def test_corrupt_images_are_skipped_when_asked_and_then_said(tmp_path):
    two_classes(tmp_path, cats=10, dogs=10)
    (tmp_path / "cat" / "3.png").write_bytes(b"")
    splits = load(tmp_path, skip_corrupt=True)
    seen = [number for name in SPLITS for number in numbers(getattr(splits, name))]
    assert sorted(seen) == [n for n in range(10) if n != 3] + list(range(100, 110))
    assert splits.notes == ("left out, because they cannot be read as images: cat/3.png",)
    assert sum(getattr(splits, name).count for name in SPLITS) == 19


def test_a_class_of_corrupt_images_only(tmp_path):
    by_folders(tmp_path)
    for n in range(3):
        (tmp_path / "test" / "dog" / f"{n}.png").write_bytes(b"")
    assert problems(tmp_path, skip_corrupt=True) == ["data.path: all test images of class dog are corrupt"]


def test_no_such_folder(tmp_path):
    assert problems(tmp_path / "nowhere") == [f"data.path: there is no folder {tmp_path / 'nowhere'}"]


def test_no_class_folder(tmp_path):
    write_folder(tmp_path, {"1.png": 1})
    assert problems(tmp_path) == [
        f"data.path: {tmp_path} has no class folder; one folder a class is expected"
    ]


def test_one_class_only(tmp_path):
    write_folder(tmp_path, {"cat/1.png": 1})
    assert problems(tmp_path) == [
        f"data.path: {tmp_path} has one class folder only, cat; at least two are needed"
    ]


def test_empty_class_folders_are_all_named(tmp_path):
    two_classes(tmp_path)
    (tmp_path / "ant").mkdir()
    (tmp_path / "emu").mkdir()
    suffixes = ".bmp, .gif, .jpeg, .jpg, .pgm, .png, .ppm, .tif, .tiff, .webp"
    assert problems(tmp_path) == [
        f"data.path: class folder {tmp_path / name} has no image ({suffixes})" for name in ("ant", "emu")
    ]


def test_no_validation_folder(tmp_path):
    by_folders(tmp_path, without=("validation",))
    assert problems(tmp_path) == [
        f"data.path: no validation data: {tmp_path} has the folders test, train; add {tmp_path / 'validation'}, "
        "or put one folder a class there and let fractions divide them"
    ]


def test_class_folders_that_differ_between_splits(tmp_path):
    write_folder(by_folders(tmp_path, without=("test/dog",)), {"validation/emu/1.png": 77})
    assert problems(tmp_path) == [
        f"data.path: {tmp_path / 'validation'} has the class folder emu, which {tmp_path / 'train'} has not",
        f"data.path: {tmp_path / 'test'} has one class folder only, cat; at least two are needed",
        f"data.path: {tmp_path / 'test'} has no class folder dog, which {tmp_path / 'train'} has",
    ]


def test_fractions_beside_split_folders(tmp_path):
    assert problems(by_folders(tmp_path), fractions={"test": 0.2}) == [
        f"data.fractions: {tmp_path} is divided by folders already; leave fractions out"
    ]


def test_classes_too_small_to_divide_are_all_named(tmp_path):
    assert problems(two_classes(tmp_path, cats=2, dogs=1)) == [
        "data.fractions: class cat has 2 images, too few for train, validation, test",
        "data.fractions: class dog has 1 images, too few for train, validation, test",
    ]


@pytest.mark.parametrize(
    "wrong", [{"validation": 0.0}, {"test": 0.0}, {"validation": 0.5, "test": 0.5}, {"tset": 0.1}]
)
def test_fractions_that_leave_a_split_empty_are_refused(wrong):
    with pytest.raises(ValidationError):
        Fractions(**wrong)


def test_files_that_are_empty_or_of_another_kind_are_named_and_wrong_endings_read(tmp_path):
    two_classes(tmp_path)
    (tmp_path / "cat" / "empty.png").write_bytes(b"")
    (tmp_path / "dog" / "words.jpg").write_text("no picture")
    # a PNG file under the name of a JPEG is what a person sees
    (tmp_path / "cat" / "0.png").rename(tmp_path / "cat" / "0.jpg")
    assert problems(tmp_path) == [
        "data.path: cat/empty.png, dog/words.jpg cannot be read as images; "
        "repair or remove, or write skip_corrupt: true"
    ]
    splits = load(tmp_path, skip_corrupt=True)
    assert sorted(pair for name in SPLITS for pair in pairs(getattr(splits, name)))[0] == (0, 0)


def test_a_folder_that_contains_itself_is_read_once(tmp_path):
    two_classes(tmp_path)
    (tmp_path / "cat" / "again").symlink_to(tmp_path, target_is_directory=True)
    splits = load(tmp_path)
    assert sum(getattr(splits, name).count for name in SPLITS) == 30
