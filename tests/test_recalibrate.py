"""A model behind a changed camera: repaired by a new version, refused where images cannot tell, with a way back."""

import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from finetune.batchnorm.measure import measure
from finetune.batchnorm.moments_file import REFERENCE, SavedMoments, load
from finetune.batchnorm.population import input_moments
from finetune.batchnorm.shift import shift
from finetune.drift_run import drift
from finetune.errors import DataError, GateError, ModelError
from finetune.export import export
from finetune.recalibration.history import history, rollback
from finetune.recalibration.settings import ImageSource, Settings
from finetune.recalibration_run import recalibrate
from tests.trained_service import CALIBRATION, SIZE, TEST

CLASSES = [f"class_{number}" for number in range(10)]
LABELLED = Settings(labelled=True)


@pytest.fixture(scope="module")
def exported(service, tmp_path_factory):
    """What `finetune run` leaves of it: model.keras, saved_model/1, the reference and the provenance."""
    folder = tmp_path_factory.mktemp("run")
    provenance = {"recipe": {"name": "fog"}, "data": {"image_size": SIZE, "class_names": CLASSES}}
    examples = service.fog[:4].astype(np.uint8)
    reference = SavedMoments(service.reference, service.reference_images)
    export(service.model, folder, SIZE, reference, provenance, examples)
    return folder


@pytest.fixture
def place(exported, tmp_path):
    """The folder that a server reads, with version 1 in it."""
    shutil.copytree(exported / "saved_model", tmp_path / "shirts")
    return tmp_path / "shirts"


@pytest.fixture(scope="module")
def pictures(service, tmp_path_factory):
    """Folders of calibration images by camera, in folders by class."""
    root = tmp_path_factory.mktemp("pictures")
    cameras = {
        "dark": service.dark,
        "same": service.fog,
        "contrast": np.round(127 + (service.fog - 127) * 0.3),
        "bright": np.clip(service.fog + 60, 0, 255),
        "inverted": 255 - service.fog,
    }
    for camera, images in cameras.items():
        for number in range(CALIBRATION.start, CALIBRATION.stop):
            folder = root / camera / CLASSES[service.classes[number]]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[number].astype(np.uint8)).save(folder / f"{number}.png")
    return root


def accuracy(version, images, classes):
    return float(np.mean(answers(version, images).argmax(1) == classes[TEST]))


def answers(version, images):
    # the name holds the loaded object: its functions do not keep its variables alive
    loaded = tf.saved_model.load(str(version))
    return np.asarray(loaded.serve(tf.constant(images[TEST].astype(np.uint8))))


@pytest.mark.parametrize("method", ["layerwise", "one_pass"])
def test_a_darkened_camera_is_repaired_in_a_new_version(service, place, pictures, method):
    before = accuracy(place / "1", service.dark, service.classes)
    done = recalibrate(place, ImageSource(folder=pictures / "dark"), settings=Settings(method=method))
    assert done.version == place / "2"
    assert (done.measurement.kind, done.measurement.images) == ("matched", 512)
    after = accuracy(place / "2", service.dark, service.classes)
    assert after > before + 0.1
    assert abs(after - accuracy(place / "1", service.fog, service.classes)) <= 0.01


def test_it_equals_the_live_model_measured_on_the_same_images(service, place, pictures):
    recalibrate(place, ImageSource(folder=pictures / "dark"))
    measure(service.model, service.sites, lambda: [service.dark[CALIBRATION]], reference=service.reference)
    live = service.model.predict(service.dark[TEST], batch_size=500, verbose=0)
    for site, statistics in zip(service.sites, service.trained, strict=True):
        site.store(statistics)
    np.testing.assert_allclose(answers(place / "2", service.dark), live, atol=1e-4)


def test_a_second_time_on_the_same_images_changes_no_byte_of_the_statistics(place, pictures):
    recalibrate(place, ImageSource(folder=pictures / "dark"))
    again = recalibrate(place, ImageSource(folder=pictures / "dark"))
    assert again.bytes_changed == 0
    data = "variables/variables.data-00000-of-00001"
    assert (place / "2" / data).read_bytes() == (place / "3" / data).read_bytes()
    assert (place / "2" / "saved_model.pb").read_bytes() == (place / "1" / "saved_model.pb").read_bytes()


def test_there_and_back_again_is_where_it_began(service, place, pictures):
    """The reference goes on with each version, so that matched statistics of the first camera restore the first."""
    recalibrate(place, ImageSource(folder=pictures / "dark"))
    recalibrate(place, ImageSource(folder=pictures / "same"))
    first, third = (accuracy(place / n, service.fog, service.classes) for n in ("1", "3"))
    assert abs(third - first) <= 0.01


def test_the_live_version_is_never_touched(place, pictures):
    def contents():
        return {
            file.relative_to(place): file.read_bytes() for file in (place / "1").rglob("*") if file.is_file()
        }

    before = contents()
    recalibrate(place, ImageSource(folder=pictures / "dark"))
    assert contents() == before


@pytest.mark.parametrize("camera", ["dark", "contrast", "bright"])
def test_the_gate_lets_pass_what_bn_can_repair(place, pictures, camera):
    done = recalibrate(place, ImageSource(folder=pictures / camera), settings=LABELLED, dry=True)
    assert done.verdict.passed, done.verdict.reason
    assert done.verdict.scores["accuracy"].value > 0
    assert done.version is None
    assert [folder.name for folder in place.iterdir()] == ["1"]


def refused(place, source, tmp_path, **options):
    settings = Settings(refused=tmp_path / "refused.json", **options)
    with pytest.raises(GateError, match="not published") as error:
        recalibrate(place, source, settings=settings)
    assert [folder.name for folder in place.iterdir()] == ["1"]
    report = json.loads((tmp_path / "refused.json").read_text())
    assert report["reason"] in str(error.value)
    return {check["name"] for check in report["checks"] if not check["passed"]}


def test_one_image_is_refused(place, pictures, tmp_path):
    failed = refused(place, ImageSource(folder=pictures / "same"), tmp_path, samples=1)
    assert "enough images" in failed


def test_two_of_ten_classes_are_refused_without_labels(place, pictures, tmp_path):
    two = tmp_path / "two"
    for name in CLASSES[:2]:
        shutil.copytree(pictures / "same" / name, two / name)
    assert "class balance" in refused(place, ImageSource(folder=two), tmp_path)


def test_images_of_all_classes_are_refused_where_two_are_said_to_be_in_service(place, pictures, tmp_path):
    shares = (0.5, 0.5, *[0.0] * 8)
    failed = refused(place, ImageSource(folder=pictures / "same"), tmp_path, class_shares=shares)
    assert failed == {"class balance"}


def test_inverted_images_with_labels_are_refused(place, pictures, tmp_path):
    failed = refused(place, ImageSource(folder=pictures / "inverted"), tmp_path, labelled=True)
    assert failed & {"a change that BN can repair", "labelled accuracy"}


def test_against_the_gate_only_with_a_reason_that_is_recorded(place, pictures):
    settings = Settings(samples=1, force="the only picture there is")
    done = recalibrate(place, ImageSource(folder=pictures / "same"), settings=settings)
    assert done.forced
    newest = history(place)[0].lineage
    assert newest.forced
    assert newest.reason == "the only picture there is"


def test_provenance_says_what_it_was_made_from_and_rollback_leads_back(service, place, pictures):
    recalibrate(place, ImageSource(folder=pictures / "dark"), settings=LABELLED)
    newest, oldest = history(place)
    assert (newest.lineage.parent.version, newest.lineage.method) == (1, "layerwise")
    assert newest.lineage.images.count == 512
    assert newest.lineage.after["accuracy"] > newest.lineage.before["accuracy"]
    assert oldest.lineage is None
    version = rollback(place, "test")
    served = accuracy(version, service.fog, service.classes)
    assert served == accuracy(place / "1", service.fog, service.classes)


@pytest.mark.parametrize("kind", ["file", "run folder"])
def test_a_keras_file_becomes_the_first_version_of_a_folder(service, exported, pictures, tmp_path, kind):
    given = exported / "model.keras" if kind == "file" else tmp_path / "run"
    if kind == "run folder":
        shutil.copytree(exported, given, ignore=shutil.ignore_patterns("saved_model"))
    done = recalibrate(given, ImageSource(folder=pictures / "dark"), tmp_path / "out")
    assert done.version == tmp_path / "out" / "1"
    loaded = keras.saving.load_model(done.version / "model.keras")
    found = loaded.predict(service.dark[TEST], batch_size=500, verbose=0).argmax(1)
    assert float(np.mean(found == service.classes[TEST])) > service.accuracy(service.dark) + 0.1
    assert (done.version / REFERENCE).is_file()


def test_a_model_outside_of_any_folder_of_versions_needs_one(exported, pictures):
    with pytest.raises(ModelError, match="say with --out DIR where the new version goes"):
        recalibrate(exported / "model.keras", ImageSource(folder=pictures / "dark"))


def test_without_a_reference_it_is_plain_and_says_what_that_risks(place, pictures):
    (place / "1" / "assets.extra" / REFERENCE).unlink()
    settings = Settings(force="to see it ruined")
    done = recalibrate(place, ImageSource(folder=pictures / "dark"), settings=settings, dry=True)
    assert done.measurement.kind == "plain"
    assert any("ruins a model that was trained with frozen statistics" in note for note in done.notes)


def test_what_plain_statistics_ruin_is_refused_even_without_labels(place, pictures, tmp_path):
    (place / "1" / "assets.extra" / REFERENCE).unlink()
    assert refused(place, ImageSource(folder=pictures / "dark"), tmp_path) == {"class balance"}


def test_a_reference_is_measured_from_source_images(service, place, pictures):
    (place / "1" / "assets.extra" / REFERENCE).unlink()
    settings = Settings(reference_images=pictures / "same")
    recalibrate(place, ImageSource(folder=pictures / "dark"), settings=settings)
    assert accuracy(place / "2", service.dark, service.classes) > service.accuracy(service.fog) - 0.02


def test_plain_is_refused_where_the_reference_shows_that_it_ruins_the_model(place, pictures):
    with pytest.raises(GateError, match="standard deviations from those of its own training images"):
        recalibrate(place, ImageSource(folder=pictures / "dark"), settings=Settings(statistics="plain"))


def test_the_reference_goes_on_as_what_the_sites_see_now(service, place, pictures):
    recalibrate(place, ImageSource(folder=pictures / "dark"))
    carried = load(place / "2" / "assets.extra" / REFERENCE)
    measure(service.model, service.sites, lambda: [service.dark[CALIBRATION]], reference=service.reference)
    seen, _ = input_moments(service.model, service.sites, [service.dark[CALIBRATION]])
    for site, moments, statistics in zip(service.sites, seen, service.trained, strict=True):
        new = carried.moments[site.path]
        assert new.count == service.reference[site.path].count
        assert shift(new.statistics(), moments.statistics(), site.epsilon).kl < 1e-6
        site.store(statistics)


def test_a_damaged_reference_and_that_of_another_network_are_named(place, pictures):
    file = place / "1" / "assets.extra" / REFERENCE
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    with pytest.raises(ModelError, match="not a file of population moments, or a damaged one"):
        recalibrate(place, ImageSource(folder=pictures / "dark"))


def test_pictures_that_are_none_are_an_error_of_the_data(place, tmp_path):
    with pytest.raises(DataError, match="expected a folder of pictures"):
        recalibrate(place, ImageSource(folder=tmp_path / "nowhere"))


def test_drift_tells_another_camera_from_the_same_and_writes_nothing(place, pictures):
    same = drift(str(place), ImageSource(folder=pictures / "same"))
    dark = drift(str(place), ImageSource(folder=pictures / "dark"))
    assert same.against == "reference"
    assert same.overall < 0.1 < dark.overall
    assert dark.worst == next(iter(dark.shifts))
    assert [folder.name for folder in place.iterdir()] == ["1"]


def test_after_a_recalibration_the_drift_is_gone(place, pictures):
    recalibrate(place, ImageSource(folder=pictures / "dark"))
    assert drift(str(place), ImageSource(folder=pictures / "dark")).overall < 1e-4
