"""What is read from disk is what was written, or nothing."""

import os

import numpy as np
import pytest

from finetune.feature_cache.store import SUFFIX, Space, clear, default_folder, load, save

ROW = np.dtype([("features", np.float32, (2, 3)), ("label", np.int32)])


def rows(count=7, seed=0):
    values = np.zeros(count, ROW)
    values["features"] = np.random.default_rng(seed).normal(size=(count, 2, 3))
    values["label"] = np.arange(count)
    return values


def put(space, key, count=7):
    values = rows(count)
    save(space, key, count, ROW, iter([values[:4], values[4:]]))
    return space.folder / (key + SUFFIX)


@pytest.fixture
def space(tmp_path):
    return Space(folder=tmp_path / "features")


def test_rows_come_back_as_they_were_mapped_and_read_only(space):
    put(space, "one")
    found = load(space.folder, "one")
    np.testing.assert_array_equal(found, rows())
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable


def test_a_key_that_was_never_written_has_no_rows(space):
    assert load(space.folder, "one") is None
    put(space, "one")
    assert load(space.folder, "two") is None


def flip(place):
    def damage(path):
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)

    return damage


def cut_to(size):
    return lambda path: os.truncate(path, size if size >= 0 else path.stat().st_size + size)


def lengthened(path):
    path.write_bytes(path.read_bytes() + b"\0")


DAMAGES = {
    "header": flip(20),
    "row": flip(200),
    "digest": flip(-1),
    "torn": cut_to(-40),
    "byte missing": cut_to(-1),
    "short": cut_to(31),
    "empty": cut_to(0),
    "lengthened": lengthened,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_deleted_and_can_be_written_again(space, damage):
    path = put(space, "one")
    damage(path)
    assert load(space.folder, "one") is None
    assert not path.exists()
    put(space, "one")
    np.testing.assert_array_equal(load(space.folder, "one"), rows())


def test_the_rows_of_another_key_are_not_taken(space):
    put(space, "one").rename(space.folder / f"two{SUFFIX}")
    assert load(space.folder, "two") is None


def test_what_breaks_off_leaves_nothing_behind(space):
    def broken():
        yield rows()[:4]
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        save(space, "one", 7, ROW, broken())
    assert list(space.folder.iterdir()) == []


def test_the_file_that_was_not_used_for_longest_makes_room(space):
    sizes = [put(space, key).stat().st_size for key in ("one", "two", "three")]
    for age, key in enumerate(("three", "two", "one")):
        os.utime(space.folder / (key + SUFFIX), (1000 + age, 1000 + age))
    load(space.folder, "three")
    put(Space(disk=sum(sizes), folder=space.folder), "four")
    assert {path.stem for path in space.folder.iterdir()} == {"one", "three", "four"}


def test_what_does_not_fit_at_all_is_refused_and_deletes_nothing(space):
    put(space, "one")
    with pytest.raises(OSError, match=r"the features take 196 bytes, 100 are allowed"):
        save(Space(disk=100, folder=space.folder), "two", 7, ROW, iter([rows()]))
    assert load(space.folder, "one") is not None


def test_clearing_deletes_features_and_nothing_else(space):
    size = put(space, "one").stat().st_size
    unfinished = space.folder / "two.17.features-unfinished"
    unfinished.write_bytes(b"12345")
    mine = space.folder / "mine.npy"
    mine.write_bytes(b"mine")
    assert clear(space.folder) == size + 5
    assert list(space.folder.iterdir()) == [mine]
    assert clear(space.folder / "missing") == 0


def test_the_folder_is_the_one_that_is_named_or_the_persons_own_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("FINETUNE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "finetune" / "features"
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "here"))
    assert default_folder() == tmp_path / "here"
