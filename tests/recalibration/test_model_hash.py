"""The hash of a model is that of its files, and of nothing else about them."""

import hashlib
import os

import pytest

from finetune.recalibration.model_hash import model_hash
from tests.recalibration.places import saved_model


@pytest.fixture
def model(tmp_path):
    saved_model(1)(tmp_path / "model")
    return tmp_path / "model"


def test_that_of_a_file_is_its_sha_256(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"x" * 3_000_000)
    assert model_hash(tmp_path / "model.onnx") == hashlib.sha256(b"x" * 3_000_000).hexdigest()


def test_neither_dates_nor_the_folder_nor_provenance_change_it(model, tmp_path):
    before = model_hash(model)
    os.utime(model / "saved_model.pb", (1, 1))
    (model / "assets.extra").mkdir()
    (model / "assets.extra" / "provenance.json").write_text("{}")
    (model / "provenance.json").write_text("{}")
    assert model_hash(model.rename(tmp_path / "elsewhere")) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda model: (model / "saved_model.pb").write_bytes(b"\2" * 1000),
        lambda model: (model / "saved_model.pb").rename(model / "saved_model.pc"),
        lambda model: (model / "variables" / "variables.index").rename(model / "variables.index"),
        lambda model: (model / "new").touch(),
        lambda model: (model / "saved_model.pb").unlink(),
    ],
)
def test_a_byte_a_name_or_a_file_changes_it(model, change):
    before = model_hash(model)
    change(model)
    assert model_hash(model) != before
