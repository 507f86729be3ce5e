"""A registered model behind a changed camera: a new version of it, served over HTTP once it is promoted, and back."""

import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import keras
import mlflow.pyfunc
import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from finetune.batchnorm.moments_file import REFERENCE, SavedMoments, load, save
from finetune.doctor_run import doctor
from finetune.drift_series import drift
from finetune.errors import GateError, InputError, ModelError
from finetune.progress import Progress
from finetune.recalibration.lineage import read_lineage
from finetune.recalibration.settings import ImageSource, Settings
from finetune.registered_run import recalibrate
from finetune.tracking import open_run
from finetune.tracking.manners import good_manners
from finetune.tracking.registry import open_registry
from tests.trained_service import CALIBRATION, SIZE, TEST

CLASSES = [f"class_{number}" for number in range(10)]
FEW = slice(TEST.start, TEST.start + 8)
UP_WITHIN = 300.0


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture(scope="module")
def client(store):
    return MlflowClient(tracking_uri=store, registry_uri=store)


@pytest.fixture(scope="module")
def trained(service, tmp_path_factory):
    """What `finetune run` leaves of it, as far as it is logged."""
    folder = tmp_path_factory.mktemp("run")
    service.model.save(folder / "model.keras")
    save(folder / REFERENCE, SavedMoments(service.reference, service.reference_images))
    provenance = {"recipe": {"name": "fog"}, "data": {"image_size": SIZE, "class_names": CLASSES}}
    (folder / "provenance.json").write_text(json.dumps(provenance))
    return folder


@pytest.fixture
def shirts(service, trained, store, client, request):
    """A registered model whose version 1 serves as champion; its name is that of the test."""
    images = service.fog[FEW].astype(np.uint8)
    answers = service.model.predict(images.astype(np.float32), verbose=0)
    beside = [trained / REFERENCE, trained / "provenance.json"]
    with open_run(store, "training", "fog", {}, {}, pytest.fail) as tracking:
        required = [f"keras=={keras.__version__}"]
        uri = tracking.log_model(trained / "model.keras", images, answers, required, beside)
        tracking.register(uri, request.node.name)
    client.set_registered_model_alias(request.node.name, "champion", "1")
    return f"models:/{request.node.name}"


@pytest.fixture(scope="module")
def today(service, tmp_path_factory):
    """Pictures of the darkened camera, in folders by class."""
    root = tmp_path_factory.mktemp("today")
    for number in range(CALIBRATION.start, CALIBRATION.stop):
        folder = root / CLASSES[service.classes[number]]
        folder.mkdir(exist_ok=True)
        Image.fromarray(service.dark[number].astype(np.uint8)).save(folder / f"{number}.png")
    return root


def predictions(store, address, images):
    with good_manners(store), pytest.MonkeyPatch.context() as patch:
        # of this store, whatever registry the environment names
        patch.setenv("MLFLOW_REGISTRY_URI", store)
        loaded = mlflow.pyfunc.load_model(address)
    return loaded.predict(images.astype(np.uint8))


def accuracy(service, answers):
    return float(np.mean(answers.argmax(1) == service.classes[TEST]))


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def served(store, address):
    """MLflow's own server for as long as the block lasts; gives a function that waits for it and asks it."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", address]
    command += ["--env-manager", "local", "--port", str(port), "--host", "127.0.0.1", "--workers", "1"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": store, "PATH": path}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, start_new_session=True, **quiet) as server:
        try:
            yield lambda images: asked(server, port, images)
        finally:
            # the group: uvicorn is its child
            os.killpg(server.pid, signal.SIGKILL)


def wait_until_up(server, port):
    begun = time.monotonic()
    while server.poll() is None and time.monotonic() - begun < UP_WITHIN:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the server is not up: {server.poll()}")


def asked(server, port, images):
    wait_until_up(server, port)
    body = json.dumps({"inputs": images.astype(np.uint8).tolist()}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", body, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return np.array(json.load(answer)["predictions"])


def test_a_promoted_version_is_what_mlflow_serves(service, shirts, store, today):
    champion = f"{shirts}@champion"
    images = service.dark[FEW]
    with served(store, champion) as ask:
        # while the server starts
        recalibrate(champion, ImageSource(folder=today), store=store)
        before = ask(images)
    np.testing.assert_allclose(before, service.model.predict(images, verbose=0), atol=1e-5)
    with open_registry(store) as registry:
        registry.move_alias("champion", f"{shirts}/2")
    with served(store, champion) as ask:
        after = ask(images)
    assert np.abs(after - before).max() > 0.1
    np.testing.assert_allclose(after, predictions(store, f"{shirts}/2", images), atol=1e-5)


def test_the_new_version_is_repaired_and_the_alias_stays_where_it_was(service, shirts, store, client, today):
    settings = Settings(labelled=True)
    done = recalibrate(f"{shirts}@champion", ImageSource(folder=today), settings, store=store)
    assert (done.address, done.alias, done.parent) == (f"{shirts}/2", None, f"{shirts}/1")
    name = shirts.removeprefix("models:/")
    assert int(client.get_model_version_by_alias(name, "champion").version) == 1
    tags = client.get_model_version(name, "2").tags
    assert (tags["parent_version"], tags["method"], tags["statistics"]) == ("1", "layerwise", "matched")
    assert float(tags["accuracy_after"]) > float(tags["accuracy_before"]) + 0.1
    before, after = (
        accuracy(service, predictions(store, f"{shirts}/{n}", service.dark[TEST])) for n in (1, 2)
    )
    assert after > before + 0.1


def test_the_record_and_the_reference_travel_in_the_model_folder(shirts, store, today, tmp_path):
    recalibrate(f"{shirts}@champion", ImageSource(folder=today), store=store)
    with open_registry(store) as registry:
        found = registry.find(f"{shirts}/2")
        folder = registry.download(found, tmp_path)
    lineage = read_lineage(folder)
    assert (lineage.parent.name, lineage.parent.version) == (f"{shirts}/1", 1)
    assert lineage.images.count == 512
    assert len(load(folder / REFERENCE).moments) == 4
    # found again where it lies: the statistics of today are those of its reference
    assert drift(f"{shirts}/2", ImageSource(folder=today), store=store).overall < 1e-4


def test_the_doctor_says_of_an_address_what_it_says_of_the_file(shirts, trained, store, client, today):
    run = client.get_model_version(shirts.removeprefix("models:/"), "1").run_id
    images = ImageSource(folder=today)
    here = doctor(str(trained / "model.keras"), images)
    assert here.shifts
    for address in (f"{shirts}@champion", f"{shirts}/1", f"runs:/{run}/fog"):
        there = doctor(address, images, store=store)
        assert there.address == address
        assert [finding.kind for finding in there.findings] == [finding.kind for finding in here.findings]
        # the reference that travels with the model is seen there, too
        assert there.shifts == here.shifts


def test_the_doctor_names_an_address_that_leads_nowhere(shirts, store):
    with pytest.raises(InputError, match=f"^MLflow at {re.escape(store)}: .*nobody"):
        doctor(f"{shirts}@nobody", store=store)


def test_the_gate_and_its_numbers_are_in_the_run(shirts, store, client, today):
    settings = Settings(labelled=True)
    recalibrate(f"{shirts}@champion", ImageSource(folder=today), settings, store=store)
    run = client.get_run(client.get_model_version(shirts.removeprefix("models:/"), "2").run_id)
    assert {each.path for each in client.list_artifacts(run.info.run_id)} == {"gate.json", "provenance.json"}
    assert run.data.metrics["after/accuracy"] > run.data.metrics["before/accuracy"] + 0.1
    assert run.data.params["parent_version"] == "1"
    assert run.data.params["images.count"] == "512"


def test_rolled_back_it_answers_bit_for_bit_as_before(service, shirts, store, today):
    champion = f"{shirts}@champion"
    before = predictions(store, champion, service.dark[TEST])
    done = recalibrate(champion, ImageSource(folder=today), store=store, promote=True)
    assert (done.address, done.alias) == (f"{shirts}/2", "champion")
    assert not np.array_equal(predictions(store, champion, service.dark[TEST]), before)
    with open_registry(store) as registry:
        registry.step_back(champion)
    assert np.array_equal(predictions(store, champion, service.dark[TEST]), before)


def test_what_the_gate_refuses_is_not_registered(shirts, store, client, today, tmp_path):
    settings = Settings(samples=1, refused=tmp_path / "refused.json")
    with pytest.raises(GateError, match=f"{shirts}@champion: not published"):
        recalibrate(f"{shirts}@champion", ImageSource(folder=today), settings, store=store, promote=True)
    assert len(client.search_model_versions(f"name='{shirts.removeprefix('models:/')}'")) == 1


def test_dry_measures_and_registers_nothing(shirts, store, client, today):
    done = recalibrate(f"{shirts}@champion", ImageSource(folder=today), store=store, dry=True)
    assert done.done.verdict.passed
    assert done.address is None
    assert len(client.search_model_versions(f"name='{shirts.removeprefix('models:/')}'")) == 1


def test_the_model_of_a_run_is_logged_anew_and_has_no_alias_to_move(shirts, store, client, today):
    logged = client.get_model_version(shirts.removeprefix("models:/"), "1").source
    run = client.get_logged_model(logged.removeprefix("models:/")).source_run_id
    address = f"runs:/{run}/fog"
    with pytest.raises(InputError, match="--promote moves an alias of a registered model"):
        recalibrate(address, ImageSource(folder=today), store=store, promote=True)
    done = recalibrate(address, ImageSource(folder=today), store=store)
    made = client.get_logged_model(done.address.removeprefix("models:/"))
    assert f"models:/{made.tags['parent_model_id']}" == logged
    assert len(client.search_model_versions(f"name='{shirts.removeprefix('models:/')}'")) == 1


def test_what_is_wrong_with_the_model_is_told_of_its_address(shirts, store, client, today, tmp_path):
    source = client.get_model_version(shirts.removeprefix("models:/"), "1").source
    place = client.get_logged_model(source.removeprefix("models:/")).artifact_location
    Path(place.removeprefix("file://"), "data", "model.keras").write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(ModelError, match=f"{shirts}@champion") as error:
        recalibrate(f"{shirts}@champion", ImageSource(folder=today), store=store)
    assert "/tmp" not in str(error.value)


def test_the_drift_of_a_model_is_a_series_with_a_depth_profile_for_each_step(shirts, store, client, today):
    champion = f"{shirts}@champion"
    first = drift(champion, ImageSource(folder=today), store=store)
    recalibrate(champion, ImageSource(folder=today), store=store, promote=True)
    second = drift(champion, ImageSource(folder=today), store=store)
    experiment = client.get_experiment_by_name("drift").experiment_id
    (series,) = client.search_runs([experiment], f"tags.series = '{champion}'")
    points = client.get_metric_history(series.info.run_id, "drift/overall")
    assert [(each.step, each.value) for each in points] == [(0, first.overall), (1, second.overall)]
    assert second.overall < first.overall / 10
    runs = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{series.info.run_id}'")
    assert {run.data.params["version"] for run in runs} == {f"{shirts}/1", f"{shirts}/2"}
    profile = client.get_metric_history(runs[-1].info.run_id, "bn_depth/mean")
    assert [each.step for each in profile] == [0, 1, 2, 3]


def test_a_store_that_is_away_does_not_hide_the_drift_of_a_file(service, trained, today):
    said = []
    progress = Progress()
    progress.note = said.append
    away = "http://127.0.0.1:9"
    seen = drift(str(trained / "model.keras"), ImageSource(folder=today), None, progress, store=away)
    assert seen.overall > 0.1
    assert any("tracking ends here" in words for words in said)


@pytest.fixture
def script(monkeypatch, capsys):
    """`scripts/recalibrate.py` as cron starts it: exit code and what it wrote."""
    file = Path(__file__).parents[1] / "scripts" / "recalibrate.py"

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", [str(file), *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(file), run_name="__main__")
        return left.value.code, capsys.readouterr()

    return call


def test_cron_recalibrates_once_and_lets_be_what_is_within_the_threshold(shirts, store, today, script):
    given = [f"{shirts}@champion", "--images", today, "--promote", "--tracking-uri", store]
    code, said = script(*given)
    assert (code, said.out.endswith(f"above 0.3: {shirts}/2, served as champion\n")) == (0, True)
    code, said = script(*given)
    assert (code, said.out.endswith("within 0.3\n")) == (0, True)
    with open_registry(store) as registry:
        assert [each.aliases for each in registry.versions(shirts)] == [("champion",), ()]


def test_cron_is_told_of_a_refusal_by_exit_code_4(shirts, store, today, script, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    given = ["--images", today, "--samples", 1, "--promote", "--tracking-uri", store]
    code, said = script(f"{shirts}@champion", *given)
    assert code == 4
    assert said.err.startswith(f"error: {shirts}@champion: not published: enough images")
    with open_registry(store) as registry:
        assert [each.aliases for each in registry.versions(shirts)] == [("champion",)]
