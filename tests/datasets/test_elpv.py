"""The data sheet of elpv, read from the package that the extra installs."""

import numpy as np
import pytest
from PIL import Image

from finetune.datasets import TensorFlowDatasets
from finetune.datasets.elpv import elpv_dataset_builder as shipped
from finetune.datasets.tfds_builder import prepared_builder
from finetune.errors import DataError


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    return prepared_builder("elpv", str(tmp_path_factory.mktemp("elpv")), download=False)


@pytest.fixture(scope="module")
def rows(builder):
    return {name: list(builder.as_dataset(split=name).as_numpy_iterator()) for name in builder.info.splits}


def test_both_kinds_of_cells_have_four_splits(rows):
    assert {name: len(found) for name, found in rows.items()} == {
        "mono_train": 646, "mono_validation": 107, "mono_calibration": 107, "mono_test": 214,
        "poly_train": 930, "poly_validation": 155, "poly_calibration": 155, "poly_test": 310,
    }  # fmt: skip


def test_no_cell_is_in_two_splits_and_all_are_in_one(rows):
    assert sorted(int(row["id"]) for found in rows.values() for row in found) == list(range(2624))


def test_images_labels_and_kinds_are_those_of_the_package(rows):
    cells = {cell.number: cell for cell in shipped.read_cells()}
    for name, found in rows.items():
        for row in found:
            cell = cells[int(row["id"])]
            assert name.startswith(cell.kind)
            assert row["label"] == (cell.probability in (1.0, pytest.approx(2 / 3)))
        # one a split: decoding all of them takes long
        np.testing.assert_array_equal(row["image"][..., 0], np.asarray(Image.open(cell.file)))


def test_every_split_of_a_kind_has_about_the_same_share_of_defects(rows):
    for kind, share in (("mono", 369 / 1074), ("poly", 452 / 1550)):
        for name, found in rows.items():
            if name.startswith(kind):
                assert np.mean([row["label"] for row in found]) == pytest.approx(share, abs=0.08)


def test_it_says_what_it_is_and_that_the_licence_forbids_commercial_use(builder):
    assert builder.info.full_name == "elpv/1.0.0"
    assert builder.info.redistribution_info.license == "CC BY-NC-SA 4.0, not for commercial use"
    assert "10.1016/j.solener.2019.02.067" in builder.info.citation
    assert "does not allow commercial use" in builder.info.description.replace("\n", " ")
    assert builder.info.features["label"].names == ["functional", "defective"]


@pytest.mark.parametrize(("name", "said"), [("elpv", 1), ("fashion_shift", 0)])
def test_a_licence_that_forbids_something_is_told(name, said, builder, tmp_path):
    place = str(tmp_path) if name == "fashion_shift" else str(builder.data_path.parents[1])
    splits = {"train": "mono_train", "validation": "mono_validation", "test": "poly_test"}
    loaded = TensorFlowDatasets(name=name, data_dir=place, **(splits if said else {})).load(16, 0)
    assert loaded.notes == ("licence of elpv: CC BY-NC-SA 4.0, not for commercial use",) * said


def test_without_the_package_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"not installed: pip install 'finetune\[elpv\]'$"):
        prepared_builder("elpv", str(tmp_path), download=False)
