"""Where versions lie, and what is opened in one."""

import pytest

from finetune.errors import OutputError
from finetune.recalibration.versions import model_in, newest, numbers, place_of
from tests.recalibration.places import one_file, saved_model


def test_only_folders_with_whole_numbers_are_versions(tmp_path):
    for name in ("1", "10", "9", "002", "v3", "-1", ".building-1", "1.part", "٣"):
        (tmp_path / name).mkdir()
    (tmp_path / "11").touch()
    assert numbers(tmp_path) == [1, 2, 9, 10]
    assert newest(tmp_path) == tmp_path / "10"


def test_the_newest_keeps_its_leading_zeros(tmp_path):
    (tmp_path / "0012").mkdir()
    assert newest(tmp_path) == tmp_path / "0012"


def test_where_there_is_no_version_there_is_no_newest(tmp_path):
    assert newest(tmp_path) is None
    assert newest(tmp_path / "nowhere") is None


def test_a_place_is_known_by_itself_by_a_version_and_by_a_file_in_it(tmp_path):
    one_file(1)(tmp_path / "3")
    for model in (tmp_path, tmp_path / "3", tmp_path / "3" / "model.onnx"):
        assert place_of(model) == tmp_path
    assert place_of(tmp_path / "model.onnx") is None


def test_a_saved_model_is_opened_as_a_folder_and_a_file_as_a_file(tmp_path):
    saved_model(1)(tmp_path / "1")
    one_file(1)(tmp_path / "2")
    (tmp_path / "2" / "provenance.json").touch()
    (tmp_path / "2" / "reference_statistics.npz").touch()
    assert model_in(tmp_path / "1") == tmp_path / "1"
    assert model_in(tmp_path / "2") == tmp_path / "2" / "model.onnx"


def test_a_version_without_a_model_or_with_two_is_refused(tmp_path):
    with pytest.raises(OutputError, match="found none"):
        model_in(tmp_path)
    one_file(1)(tmp_path / "1")
    (tmp_path / "1" / "other.keras").touch()
    with pytest.raises(OutputError, match=r"found model\.onnx, other\.keras"):
        model_in(tmp_path / "1")
