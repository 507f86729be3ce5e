"""What a version was made from is written whole and read whole, and what it had before goes along."""

import json

import numpy as np
import pytest

from finetune.batchnorm.moments import PopulationMoments
from finetune.batchnorm.moments_file import SavedMoments, load, save
from finetune.recalibration.companions import carry_reference, provenance_file, reference_file
from finetune.recalibration.lineage import (
    Images,
    Judgement,
    Lineage,
    Parent,
    read_lineage,
    read_provenance,
    write_lineage,
)
from finetune.recalibration.model_hash import model_hash
from tests.recalibration.places import one_file, saved_model

LINEAGE = Lineage(
    kind="recalibration",
    parent=Parent(name="1", hash="ab" * 32, version=1),
    images=Images(source="line", count=512, digest="cd" * 32),
    method="one_pass",
    statistics="matched",
    prior=16.0,
    before={"accuracy": 0.1},
    after={"accuracy": 0.9},
    gate=(Judgement(name="enough images", passed=True, detail="512"),),
    forced=True,
    reason="they said so",
    packages={"tensorflow": "2.21.0"},
)


@pytest.fixture(params=[saved_model, one_file])
def version(request, tmp_path):
    request.param(1)(tmp_path / "1")
    return tmp_path / "1"


def test_what_is_written_is_read_again_with_date_and_hash(version):
    before = model_hash(version)
    write_lineage(version, LINEAGE)
    found = read_lineage(version)
    assert found is not None
    assert found.hash == before == model_hash(version)
    assert found.date.startswith("20")
    assert found.model_copy(update={"hash": "", "date": ""}) == LINEAGE


def test_it_lies_where_an_export_has_it(tmp_path):
    saved_model(1)(tmp_path / "1")
    one_file(1)(tmp_path / "2")
    assert provenance_file(tmp_path / "1") == tmp_path / "1" / "assets.extra" / "provenance.json"
    for model in (tmp_path / "2", tmp_path / "2" / "model.onnx"):
        assert provenance_file(model) == tmp_path / "2" / "provenance.json"


def test_what_the_training_wrote_stays_and_an_older_record_goes(version):
    write_lineage(version, LINEAGE, {"class_names": ["a"], "lineage": {"kind": "older"}, "format": 1})
    values = read_provenance(version)
    assert values["class_names"] == ["a"]
    assert values["lineage"]["kind"] == "recalibration"


def test_a_model_without_provenance_has_no_lineage(version):
    assert read_provenance(version) == {}
    assert read_lineage(version) is None


def test_a_record_of_a_later_release_is_read(version):
    write_lineage(version, LINEAGE)
    values = json.loads(provenance_file(version).read_text())
    values["lineage"]["mood"] = "good"
    provenance_file(version).write_text(json.dumps(values))
    assert read_lineage(version) is not None


def test_reference_statistics_travel_with_the_version(version, tmp_path):
    reference_file(version).parent.mkdir(exist_ok=True)
    moments = PopulationMoments.of_batch(8, np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    save(reference_file(version), SavedMoments({"site": moments}, 8))
    saved_model(2)(tmp_path / "2")
    carry_reference(version, tmp_path / "2")
    assert load(tmp_path / "2" / "assets.extra" / "reference_statistics.npz").images == 8


def test_where_there_are_none_nothing_is_carried(version, tmp_path):
    one_file(2)(tmp_path / "2")
    carry_reference(version, tmp_path / "2")
    assert [file.name for file in (tmp_path / "2").iterdir()] == ["model.onnx"]
