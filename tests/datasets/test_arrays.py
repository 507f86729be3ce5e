"""Arrays from Python: what is written is what a recipe reads, and what is wrong is said at once."""

import zipfile

import numpy as np
import pytest

from finetune.datasets import Arrays
from finetune.datasets import array_file as file_of
from finetune.datasets.array_file import save_arrays
from finetune.errors import DataError, InputError, OutputError

COUNT = 24


def pictures(count=COUNT, first=0, channels=3):
    """Each of one grey value, its number."""
    shape = (1, 8, 8, channels) if channels else (1, 8, 8)
    return np.concatenate([np.full(shape, first + number, np.uint8) for number in range(count)])


def labels(count=COUNT):
    return np.arange(count) % 3


def pairs(split):
    return [(int(np.asarray(image)[0, 0, 0]), int(label)) for image, label in split.examples]


@pytest.mark.parametrize("channels", [3, 1, None])
def test_what_is_given_by_split_stays_in_its_split(tmp_path, channels):
    place = save_arrays(
        tmp_path / "all.npz",
        (pictures(channels=channels), labels()),
        (pictures(6, 100, channels), labels(6)),
        (pictures(6, 200, channels), labels(6)[:, None]),
        class_names=("a", "b", "c"),
    )
    loaded = Arrays(path=str(place)).load(8, 0)
    assert sorted(pairs(loaded.train)) == [(number, number % 3) for number in range(COUNT)]
    assert sorted(pairs(loaded.validation)) == [(100 + number, number % 3) for number in range(6)]
    assert sorted(pairs(loaded.test)) == [(200 + number, number % 3) for number in range(6)]
    assert sorted(pairs(loaded.calibration)) == sorted(pairs(loaded.train))
    assert loaded.shares_training
    assert loaded.class_names == ("a", "b", "c")


def test_fractions_divide_what_is_given_whole(tmp_path):
    place = save_arrays(tmp_path / "all.npz", (pictures(), labels()))
    loaded = Arrays(path=str(place), fractions={"validation": 0.25, "test": 0.125}).load(8, 0)
    parts = [pairs(split) for split in (loaded.train, loaded.validation, loaded.test)]
    assert [len(part) for part in parts] == [15, 6, 3]
    assert sorted(pair for part in parts for pair in part) == [
        (number, number % 3) for number in range(COUNT)
    ]
    assert loaded.class_names == ("0", "1", "2")


def test_a_changed_pixel_changes_the_digest(tmp_path):
    images = pictures()
    before = Arrays(path=str(save_arrays(tmp_path / "a.npz", (images, labels())))).load(8, 0).digest
    images[3, 0, 0, 0] += 1
    after = Arrays(path=str(save_arrays(tmp_path / "a.npz", (images, labels())))).load(8, 0).digest
    assert before != after


def test_every_problem_is_said_at_once_and_nothing_is_written(tmp_path):
    with pytest.raises(InputError) as caught:
        save_arrays(
            tmp_path / "all.npz",
            (pictures() / 255.0, labels()),
            (pictures(6), labels(5)),
            (pictures(6)[..., :2], labels(6) - 1),
            (pictures(6), labels(6) + 0.5),
            class_names=("a", "b"),
        )
    assert str(caught.value).splitlines() == [
        "save_arrays: train_images: expected uint8, 0..255, got float64; (x * 255).astype('uint8') of 0..1",
        "save_arrays: train_labels: got 2, and there are 2 class names",
        "save_arrays: validation_labels: 5 labels of 6 images",
        "save_arrays: validation_labels: got 2, and there are 2 class names",
        "save_arrays: test_images: expected (count, height, width, 3) or (count, height, width), got (6, 8, 8, 2)",
        "save_arrays: test_labels: expected numbers from 0, got -1",
        "save_arrays: calibration_labels: expected whole numbers (count,), got float64 (6,)",
    ]
    assert not list(tmp_path.iterdir())


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"expected a name that ends in \.npz"):
        save_arrays(tmp_path / "all.npy", (pictures(), labels()))


def refusal(path, **keys):
    with pytest.raises(DataError) as caught:
        Arrays(path=str(path), **keys).load(8, 0)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(str(path), "FILE")


def test_fractions_of_what_is_divided_already_are_refused(tmp_path):
    pair = (pictures(), labels())
    place = save_arrays(tmp_path / "all.npz", pair, pair, pair)
    assert "is divided already; leave fractions out" in refusal(place, fractions={"test": 0.5})


def test_files_of_other_makes_are_refused(tmp_path):
    assert (
        refusal(tmp_path / "none.npz") == "data.path: there is no file FILE; finetune.save_arrays writes one"
    )
    other = tmp_path / "other.npz"
    np.savez(other, x=np.zeros(3))
    assert refusal(other).startswith("data.path: FILE has no array images or train_images, but x;")
    np.savez(other, images=pictures())
    assert refusal(other) == "data.path: FILE: no array labels"
    np.savez(other, train_images=pictures(), train_labels=labels())
    with pytest.raises(DataError, match=r"no array validation_images\n.*no array test_images"):
        Arrays(path=str(other)).load(8, 0)
    np.savez(other, images=np.array([{"a": 1}], dtype=object), labels=labels(1))
    assert "damaged, or no .npz file of plain arrays" in refusal(other)


def test_a_member_that_is_no_array_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("images.npy", b"")
        archive.writestr("labels.npy", b"")
    assert refusal(tmp_path / "other.npz").endswith("no .npz file of plain arrays: images is no array")


@pytest.mark.parametrize("share", [0.0, 0.4, 0.9])
def test_a_file_that_was_cut_off_is_refused(tmp_path, share):
    whole = save_arrays(tmp_path / "all.npz", (pictures(), labels())).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: int(len(whole) * share)])
    assert "is damaged, or no .npz file of plain arrays" in refusal(tmp_path / "cut.npz")


def test_a_file_that_unpacks_to_more_than_fits_is_not_unpacked(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", b"\0" * 10**6)
    monkeypatch.setattr(file_of, "LARGEST", 10**5)
    assert "keep so many images as files" in refusal(tmp_path / "bomb.npz")


def flags(count=COUNT):
    """Multiples of 2, of 3 and of 5 among the numbers of the images."""
    return np.stack([np.arange(count) % divisor == 0 for divisor in (2, 3, 5)], axis=1)


@pytest.mark.parametrize("dtype", [bool, np.int64, np.float32])
def test_labels_may_be_flags_of_several_classes(tmp_path, dtype):
    place = save_arrays(tmp_path / "all.npz", (pictures(), flags().astype(dtype)))
    loaded = Arrays(path=str(place)).load(8, 0)
    assert loaded.multi_label
    assert loaded.class_names == ("0", "1", "2")
    for split in (loaded.train, loaded.validation, loaded.test):
        for image, label in split.examples:
            assert label.dtype == "int32"
            assert label.numpy().tolist() == flags()[int(image[0, 0, 0])].tolist()
    assert loaded.train.count + loaded.validation.count + loaded.test.count == COUNT


def test_folds_share_every_class_of_flagged_images(tmp_path):
    place = save_arrays(tmp_path / "all.npz", (pictures(), flags()))
    seen = []
    for seed in range(3):
        loaded = Arrays(path=str(place), folds=3).load(8, seed)
        part = [(int(image[0, 0, 0]), label.numpy()) for image, label in loaded.validation.examples]
        assert sum(label for _, label in part).min() >= 1
        seen += [number for number, _ in part]
    test = [int(image[0, 0, 0]) for image, _ in loaded.test.examples]
    assert sorted(seen + test) == list(range(COUNT))


def test_flags_that_do_not_fit_are_said(tmp_path):
    with pytest.raises(InputError) as caught:
        save_arrays(
            tmp_path / "all.npz",
            (pictures(), flags()),
            (pictures(6), flags(6)[:, :2]),
            (pictures(6), flags(6) * 2),
            (pictures(6), labels(6)),
            class_names=("a", "b"),
        )
    assert str(caught.value).splitlines() == [
        "save_arrays: validation_labels: expected 0 and 1 (count, 3), got bool (6, 2)",
        "save_arrays: test_labels: expected 0 and 1 (count, 3), got int64 (6, 3)",
        "save_arrays: calibration_labels: expected 0 and 1 (count, 3), got int64 (6,)",
        "save_arrays: class_names: 2 names of 3 columns of labels",
    ]
    with pytest.raises(InputError, match=r"labels: every image has exactly one class; .*labels\.argmax\(1\)"):
        save_arrays(tmp_path / "all.npz", (pictures(), np.eye(3, dtype=int)[labels()]))
    assert not list(tmp_path.iterdir())


def test_a_byte_changed_anywhere_is_refused_or_read(tmp_path):
    """zlib, zipfile and NumPy each have errors of their own; found by scripts/fuzz.py."""
    whole = save_arrays(tmp_path / "all.npz", (pictures(), labels())).read_bytes()
    random, refused = np.random.default_rng(0), 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[random.integers(len(whole))] ^= 1 << random.integers(8)
        (tmp_path / "damaged.npz").write_bytes(damaged)
        try:
            file_of.read_arrays(tmp_path / "damaged.npz")
        except DataError:
            refused += 1
    assert refused > 100
