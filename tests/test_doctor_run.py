"""The doctor on files, folders and recipes: what it says of a network that was really trained under held statistics."""

import keras
import numpy as np
import pytest
from PIL import Image

from finetune.batchnorm.moments_file import SavedMoments, save
from finetune.doctor.diagnosis import Plan
from finetune.doctor.page import render
from finetune.doctor_run import doctor, examine
from finetune.errors import InputError, ModelError
from finetune.recalibration.settings import ImageSource, Settings
from tests.trained_service import SIZE

SEEN = slice(8000, 8200)
TOLD = {"image_size": SIZE, "scale": "none"}


@pytest.fixture(scope="module")
def place(service, tmp_path_factory):
    """The service as files, and pictures of today in a folder for each class."""
    place = tmp_path_factory.mktemp("doctor")
    service.model.save(place / "model.keras")
    service.model.export(place / "saved", verbose=False)
    for number, (image, label) in enumerate(zip(service.dark[SEEN], service.classes[SEEN], strict=True)):
        folder = place / "today" / f"{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{number}.png")
    return place


@pytest.fixture(scope="module")
def live(service):
    return examine(
        service.model, service.dark[SEEN], service.classes[SEEN], reference_images=service.fog[:512]
    )


def kinds(diagnosis):
    return {finding.kind: finding.severity for finding in diagnosis.findings}


def looked_at(place, name, **settings):
    settings = Settings(samples=200, told=TOLD, **settings)
    return doctor(str(place / name), ImageSource(folder=place / "today"), settings)


def test_the_gap_is_between_the_accuracies_that_keras_itself_has(live, service):
    answers = service.model.predict(service.dark[SEEN], verbose=0).argmax(1)
    assert live.gap.running == pytest.approx(np.mean(answers == service.classes[SEEN]))
    assert live.gap.fresh > live.gap.running + 0.05
    assert kinds(live)["mode-gap"] in ("warning", "serious")


def test_a_network_trained_under_held_statistics_is_told_from_one_that_was_not(live, service):
    assert kinds(live)["stored-is-not-population"] == "warning"
    alone = examine(service.model, service.fog[SEEN])
    assert "stored-is-not-population" not in kinds(alone)


def test_a_file_and_a_folder_say_what_the_live_model_says(place, service):
    one = looked_at(place, "model.keras", labelled=True)
    other = looked_at(place, "saved", labelled=True)
    assert list(one.shifts) != []
    np.testing.assert_allclose(
        [each.mean for each in one.shifts.values()], [each.mean for each in other.shifts.values()], rtol=1e-3
    )
    assert one.gap.running == other.gap.running
    assert (one.gap.batch is None, other.gap.batch is None) == (False, True)
    live = examine(service.model, service.dark[SEEN], service.classes[SEEN])
    assert one.gap.running == live.gap.running


def test_a_reference_beside_the_file_is_used_and_makes_it_a_note(place, service, tmp_path):
    service.model.save(tmp_path / "model.keras")
    save(tmp_path / "reference_statistics.npz", SavedMoments(service.reference, service.reference_images))
    found = doctor(str(tmp_path / "model.keras"))
    assert kinds(found)["stored-is-not-population"] == "note"


def test_reference_images_are_measured_where_nothing_lies_beside_it(place, service, tmp_path):
    for number, image in enumerate(service.fog[:64]):
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / f"{number}.png")
    found = doctor(str(place / "saved"), settings=Settings(told=TOLD, reference_images=tmp_path))
    assert kinds(found)["stored-is-not-population"] == "warning"
    assert found.images == 0


def test_without_images_no_preprocessing_has_to_be_told(place):
    assert doctor(str(place / "saved")).shifts == {}


def test_a_file_is_not_changed(place, service):
    before = (place / "model.keras").read_bytes()
    looked_at(place, "model.keras", labelled=True)
    assert (place / "model.keras").read_bytes() == before


def test_a_recipe_is_examined_with_what_it_plans(service, tmp_path):
    backbone = keras.Model(service.model.input, service.model.layers[-3].output)
    backbone.save(tmp_path / "backbone.keras")
    (tmp_path / "short.yaml").write_text(f"""
backbone: {{source: saved, path: {tmp_path}/backbone.keras}}
data:
  source: tfds
  name: fashion_shift
  train: "train[:96]"
  validation: "validation[:48]"
  test: "test[:60]"
  calibration: "calibration[:64]"
  image_size: {SIZE}
  batch_size: 32
batchnorm: {{policy: retrain, momentum: 0.99, finish: none}}
stages:
  - {{train: everything, epochs: 2, learning_rate: 0.01}}
""")
    found = doctor(str(tmp_path / "short.yaml"))
    [planned] = [finding for finding in found.findings if finding.kind == "planned-training"]
    assert "keep more than 5%" in planned.measured
    assert planned.fix.startswith("momentum: ")
    assert found.images == 64


def test_a_plan_without_a_training_is_judged_by_its_numbers(service):
    for site in service.sites:
        site.follow(None)
    try:
        found = kinds(examine(service.model, plan=Plan(steps=5, batch_size=1)))
    finally:
        for site in service.sites:
            site.freeze()
    assert found["short-horizon"] == "serious"


def test_what_is_no_model_is_said(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ModelError, match=r"notes\.txt: expected a SavedModel folder"):
        doctor(str(tmp_path / "notes.txt"))
    with pytest.raises(InputError):
        doctor(str(tmp_path / "missing.yaml"))


def test_the_page_has_every_finding_and_every_site(live):
    page = render(live)
    assert page.count("<svg") == 2
    assert all(each.path in page for each in live.facts)
    assert all(finding.fix.replace('"', "&#34;").replace("'", "&#39;") in page for finding in live.findings)


def test_histograms_are_those_of_what_the_sites_get_and_hand_on(place, service, tmp_path):
    from tensorflow.python.framework.tensor_util import MakeNdarray
    from tensorflow.python.summary.summary_iterator import summary_iterator

    settings = Settings(samples=16, told=TOLD)
    doctor(
        str(place / "model.keras"), ImageSource(folder=place / "today"), settings, tensorboard=tmp_path / "tb"
    )
    [log] = (tmp_path / "tb").iterdir()
    found = {
        value.tag: MakeNdarray(value.tensor)
        for event in summary_iterator(str(log))
        for value in event.summary.value
    }
    assert sorted(found) == sorted(
        f"{site.path}/{where}" for site in service.sites for where in ("before", "after")
    )
    for site in service.sites:
        before, after = found[f"{site.path}/before"], found[f"{site.path}/after"]
        # buckets of (from, to, count)
        assert before[:, 2].sum() == after[:, 2].sum() == 16 * site.positions * site.channels
        assert before[0, 0] != after[0, 0]


def test_a_folder_has_no_histograms(place, tmp_path):
    with pytest.raises(InputError, match="expected a Keras model and images, found SavedModel"):
        doctor(str(place / "saved"), tensorboard=tmp_path / "tb")
    assert not (tmp_path / "tb").exists()
