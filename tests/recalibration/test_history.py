"""The way back: old bytes as a new version, further back each time, never anything deleted."""

import json

import pytest

from finetune.errors import ModelError, OutputError
from finetune.recalibration.companions import provenance_file
from finetune.recalibration.history import adopt, history, rollback, told
from finetune.recalibration.lineage import (
    Images,
    Lineage,
    Parent,
    read_lineage,
    read_provenance,
)
from finetune.recalibration.model_hash import model_hash
from finetune.recalibration.publish import publish
from tests.recalibration.places import content, one_file, recorded, saved_model, tree


@pytest.fixture
def place(tmp_path):
    """An original without a record, then two recalibrations."""
    publish(saved_model(1), tmp_path)
    publish(recorded(2, made_from=1), tmp_path)
    publish(recorded(3, made_from=2), tmp_path)
    return tmp_path


def test_a_rollback_publishes_the_version_before_as_the_newest(place):
    before = tree(place)
    assert rollback(place, "drifted").name == "4"
    assert content(place / "4") == 2
    assert {name: data for name, data in tree(place).items() if not name.startswith("4/")} == before
    lineage = read_lineage(place / "4")
    assert lineage is not None
    assert (lineage.kind, lineage.rolled_back, lineage.parent.version) == ("rollback", 3, 2)
    assert lineage.reason == "drifted"
    assert lineage.hash == model_hash(place / "2") == model_hash(place / "4")


def test_what_the_training_wrote_travels_with_the_bytes(place):
    rollback(place)
    assert read_provenance(place / "4")["class_names"] == ["cat", "dog"]


def test_rolling_back_again_goes_further_back_and_ends(place):
    assert [content(rollback(place)) for _ in range(2)] == [2, 1]
    with pytest.raises(OutputError, match="version 5, which is version 1 once more; nothing to go back to"):
        rollback(place)
    assert len(history(place)) == 5


def test_what_is_published_after_a_rollback_goes_back_to_what_was_rolled_back_to(place):
    rollback(place)
    publish(recorded(6, made_from=4), place)
    assert [content(rollback(place)) for _ in range(2)] == [2, 1]


def test_versions_that_were_cleared_away_bring_no_bad_one_back(place):
    rollback(place)
    for file in sorted((place / "2").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    (place / "2").rmdir()
    assert content(rollback(place)) == 1


def test_a_single_version_has_nothing_to_go_back_to(tmp_path):
    publish(saved_model(1), tmp_path)
    before = tree(tmp_path)
    with pytest.raises(OutputError, match="nothing lies before version 1; nothing to go back to"):
        rollback(tmp_path)
    assert tree(tmp_path) == before


def test_files_that_are_not_what_was_published_are_not_gone_back_to(place):
    (place / "2" / "saved_model.pb").write_bytes(b"something else")
    before = tree(place)
    with pytest.raises(ModelError, match="its files are not what was published"):
        rollback(place)
    assert tree(place) == before


def test_single_files_go_back_as_saved_models_do(tmp_path):
    for number in (1, 2):
        publish(one_file(number), tmp_path)
    assert content(rollback(tmp_path)) == 1
    assert json.loads((tmp_path / "3" / "provenance.json").read_text())["lineage"]["kind"] == "rollback"


def test_history_says_newest_first_what_each_was_made_from(place):
    rollback(place)
    versions = history(place)
    assert [version.number for version in versions] == [4, 3, 2, 1]
    assert "rolled back from 3 to 2" in versions[0].story
    assert "recalibrated from 2" in versions[1].story
    assert versions[3].story == "no record of where it came from"


def test_a_recalibration_tells_images_method_numbers_and_why_it_was_forced():
    lineage = Lineage(
        kind="recalibration",
        date="2026-11-23",
        parent=Parent(name="1", hash="ab" * 32, version=1),
        images=Images(source="line 4", count=512, digest="cd" * 32),
        method="layerwise",
        statistics="matched",
        before={"accuracy": 0.344},
        after={"accuracy": 0.78, "cross_entropy": 0.6},
        forced=True,
        reason="night shift only",
    )
    assert told(lineage) == (
        "2026-11-23 recalibrated (matched, layerwise) from 1 (abababababab) on 512 images of line 4; "
        "accuracy 0.344 -> 0.780; against the gate: night shift only"
    )


@pytest.mark.parametrize(
    "damage",
    ["", "{", "[1]", '{"lineage": 3}', '{"lineage": {"kind": "gift"}}', '{"lineage": {"kind": "rollback"}}'],
)
def test_a_damaged_record_is_one_line_of_the_history_and_no_obstacle_to_going_back(place, damage):
    provenance_file(place / "2").write_text(damage)
    story = history(place)[1].story
    assert str(provenance_file(place / "2")) in story
    assert "\n" not in story
    assert content(rollback(place)) == 2


def test_a_record_in_other_bytes_than_text_is_one_line_too(place):
    provenance_file(place / "3").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in history(place)[0].story


def test_a_place_without_versions_has_no_history(tmp_path):
    with pytest.raises(OutputError, match="expected a folder with numbered versions"):
        history(tmp_path / "nowhere")


def test_a_model_from_elsewhere_becomes_the_first_version_to_go_back_to(tmp_path):
    saved_model(7)(tmp_path / "export")
    place = tmp_path / "served"
    assert adopt(tmp_path / "export", place).name == "1"
    publish(recorded(2, made_from=1), place)
    assert content(rollback(place)) == 7
    with pytest.raises(OutputError, match="expected no version yet, found 1, 2, 3"):
        adopt(tmp_path / "export", place)
