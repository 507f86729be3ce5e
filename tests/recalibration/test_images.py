"""A folder becomes a calibration set: a fair sample, damage said in a line, the same set by the same hash."""

import numpy as np
import pytest
from PIL import Image

from finetune.errors import DataError
from finetune.recalibration.images import open_folder
from tests.datasets.pictures import two_classes, write_folder


def numbers(images, size=8, batch=4):
    """The grey values of all images, in order."""
    return [int(image[0, 0, 0]) for chunk in images.batches(size, batch) for image in chunk]


@pytest.fixture
def folder(tmp_path):
    return two_classes(tmp_path / "line")


def test_all_pictures_below_are_read_as_square_rgb(folder):
    images = open_folder(folder)
    chunks = list(images.batches(12, 7))
    assert [len(chunk) for chunk in chunks] == [7, 7, 7, 7, 2]
    assert all(chunk.shape[1:] == (12, 12, 3) and chunk.dtype == np.uint8 for chunk in chunks)
    assert sorted(numbers(images)) == [*range(10), *range(100, 120)]
    assert (images.source, images.count, images.notes) == ("line", 30, ())


def test_a_sample_is_drawn_at_random_and_by_its_seed(folder):
    assert numbers(open_folder(folder, 10)) == numbers(open_folder(folder, 10))
    assert numbers(open_folder(folder, 10, seed=1)) != numbers(open_folder(folder, 10))
    assert 0 < sum(number >= 100 for number in numbers(open_folder(folder, 15))) < 15
    assert open_folder(folder, 1000).count == 30


def test_reading_again_gives_the_same_also_where_memory_is_short(folder, monkeypatch):
    images = open_folder(folder)
    first = numbers(images)
    assert numbers(images) == first
    monkeypatch.setattr("finetune.recalibration.images.KEPT_IN_MEMORY", 0)
    again = open_folder(folder)
    assert numbers(again) == numbers(again) == first


def test_the_hash_is_that_of_names_and_contents_whatever_the_order(folder, tmp_path):
    digest = open_folder(folder).digest
    assert open_folder(folder, seed=5).digest == digest
    assert open_folder(folder.rename(tmp_path / "moved")).digest == digest
    moved = tmp_path / "moved"
    assert open_folder(moved, 10).digest != digest
    Image.new("L", (8, 8), 7).save(moved / "cat" / "3.png")
    changed = open_folder(moved).digest
    assert changed != digest
    (moved / "cat" / "3.png").rename(moved / "cat" / "300.png")
    assert open_folder(moved).digest not in (changed, digest)


def test_damaged_files_are_named_in_a_line_and_made_up_for(folder):
    for name in ("cat/0.png", "dog/5.png"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    images = open_folder(folder, 28)
    assert images.count == 28
    assert images.notes == (
        "2 of 30 files left out, because they cannot be read as images: cat/0.png, dog/5.png",
    )


def test_other_files_are_said_and_hidden_ones_are_not(folder):
    (folder / "cat" / "Thumbs.db").touch()
    (folder / ".DS_Store").touch()
    assert open_folder(folder).notes == (
        "1 files left out, because their names are not those of images: cat/Thumbs.db",
    )


def test_pictures_are_turned_as_the_camera_says(tmp_path):
    wide = Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]] * 2, np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    wide.save(tmp_path / "a.png", exif=exif)
    (image,) = next(open_folder(tmp_path).batches(2, 1))
    assert image[0].tolist() == [[0, 0, 255], [255, 0, 0]]


def test_folders_are_labels_where_asked(folder):
    images = open_folder(folder, labelled=True)
    assert images.class_names == ("cat", "dog")
    assert [int(label) for label in images.labels] == [int(number >= 100) for number in numbers(images)]
    assert open_folder(folder).labels is None


def test_labels_count_as_the_model_counts_its_classes(folder):
    images = open_folder(folder, labelled=True, class_names=["bird", "dog", "cat"])
    assert [int(label) for label in images.labels] == [1 if n >= 100 else 2 for n in numbers(images)]


def test_every_problem_with_labels_is_said_at_once(folder):
    write_folder(folder, {"loose.png": 1, "fish/1.png": 2})
    with pytest.raises(DataError) as error:
        open_folder(folder, labelled=True, class_names=["cat", "dog"])
    assert len(error.value.problems) == 2
    assert "found loose.png" in error.value.problems[0]
    assert "the model knows no class fish; it knows cat, dog" in error.value.problems[1]


def test_folders_without_pictures_are_said(tmp_path):
    with pytest.raises(DataError, match="found nothing"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="has no image"):
        open_folder(tmp_path)
    (tmp_path / "a.png").touch()
    with pytest.raises(DataError, match=r"none of its 1 pictures can be read \(a\.png\)"):
        open_folder(tmp_path)
    with pytest.raises(DataError, match="found a file"):
        open_folder(tmp_path / "a.png")


def test_a_picture_that_changes_meanwhile_is_said(folder):
    images = open_folder(folder)
    (folder / "cat" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"0\.png: changed since it was first read"):
        numbers(images)
