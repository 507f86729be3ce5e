"""The registry: what an address leads to, versions that know their parent, aliases that move and go back."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.models import Model

from finetune.errors import InputError, OutputError
from finetune.tracking.address import Found, is_address, parse
from finetune.tracking.new_version import EXPERIMENT, Entry
from finetune.tracking.registry import Registry, open_registry


@pytest.fixture
def registry(store: str, client: MlflowClient) -> Iterator[Registry]:
    client.search_experiments()
    with open_registry(store) as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As MLflow lays a model out; the weights are a few bytes."""
    (tmp_path / "logged" / "data").mkdir(parents=True)
    (tmp_path / "logged" / "data" / "model.keras").write_bytes(b"weights")
    described = Model(run_id="old", artifact_path="old", model_id="m-old")
    described.add_flavor("keras", data="data")
    described.save(str(tmp_path / "logged" / "MLmodel"))
    return tmp_path / "logged"


@pytest.fixture
def shirts(registry: Registry, client: MlflowClient, folder: Path) -> str:
    """A registered model of its own name, version 1 of which serves as champion."""
    name = f"shirts-{uuid.uuid4().hex}"
    logged = registry.publish(folder, Found("models:/somewhere"), Entry())
    client.create_registered_model(name)
    client.create_model_version(name, logged, model_id=logged.removeprefix("models:/"))
    client.set_registered_model_alias(name, "champion", "1")
    return f"models:/{name}"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("models:/shirts@champion", {"name": "shirts", "alias": "champion"}),
        ("models:/shirts/3", {"name": "shirts", "version": "3"}),
        ("models:/shirts/latest", {"name": "shirts", "version": "latest"}),
        ("models:/shirts", {"name": "shirts"}),
        ("models:/m-" + "0a" * 16, {"model_id": "m-" + "0a" * 16}),
        ("runs:/abc/model", {"run_id": "abc", "run_model": "model"}),
    ],
)
def test_every_form_of_an_address_is_read(text: str, parts: dict[str, str]) -> None:
    assert is_address(text)
    assert {key: value for key, value in vars(parse(text)).items() if value} == {"text": text, **parts}


@pytest.mark.parametrize("text", ["models:/", "models:/shirts/Production", "runs:/abc", "models:/a@b@c"])
def test_other_forms_are_refused_with_those_that_are_known(text: str) -> None:
    with pytest.raises(InputError, match="expected models:/NAME@ALIAS"):
        parse(text)


def test_a_path_is_no_address() -> None:
    assert not is_address("models/shirts")


def test_all_addresses_of_a_version_lead_to_the_same_model(
    registry: Registry, client: MlflowClient, shirts: str, tmp_path: Path
) -> None:
    version = client.get_model_version(shirts.removeprefix("models:/"), "1")
    logged = registry.find(version.source)
    addresses = [f"{shirts}@champion", f"{shirts}/1", f"{shirts}/latest", logged.address]
    addresses.append(f"runs:/{logged.run_id}/model")
    assert {registry.find(text).model_id for text in addresses} == {logged.model_id}
    for number, text in enumerate(addresses):
        copy = registry.download(registry.find(text), tmp_path / str(number))
        assert (copy / "data" / "model.keras").read_bytes() == b"weights"


@pytest.mark.parametrize("ending", ["@nobody", "/99", ""])
def test_an_address_that_leads_nowhere_is_one_line(registry: Registry, shirts: str, ending: str) -> None:
    with pytest.raises(InputError) as error:
        registry.find(shirts + ending)
    assert "\n" not in str(error.value)
    assert "nobody" in str(error.value) or shirts.removeprefix("models:/") in str(error.value)


def test_a_new_version_knows_its_parent_and_moves_no_alias(
    registry: Registry, client: MlflowClient, shirts: str, folder: Path
) -> None:
    found = registry.find(f"{shirts}@champion")
    entry = Entry(
        {"images": {"count": 5}}, {"method": "one_pass"}, {"after/accuracy": 0.9}, {"gate.json": {}}
    )
    assert registry.publish(folder, found, entry) == f"{shirts}/2"
    made = client.get_model_version(found.name, "2")
    wanted = {"parent_version": "1", "parent_model_id": found.model_id, "method": "one_pass"}
    assert wanted.items() <= made.tags.items()
    run = client.get_run(made.run_id).data
    assert {**wanted, "images.count": "5"}.items() <= run.params.items()
    assert run.metrics == {"after/accuracy": 0.9}
    assert [each.path for each in client.list_artifacts(made.run_id)] == ["gate.json"]
    assert registry.find(f"{shirts}@champion").version == 1


def test_the_mlmodel_file_names_the_new_model(
    registry: Registry, client: MlflowClient, shirts: str, folder: Path, tmp_path: Path
) -> None:
    registry.publish(folder, registry.find(f"{shirts}/1"), Entry())
    found = registry.find(f"{shirts}/2")
    described = Model.load(str(registry.download(found, tmp_path)))
    assert (described.model_id, described.run_id) == (found.model_id, found.run_id)
    assert "keras" in described.flavors


def test_what_fails_half_way_registers_nothing(
    registry: Registry, client: MlflowClient, shirts: str, folder: Path
) -> None:
    (folder / "MLmodel").unlink()
    with pytest.raises(OutputError, match="MLflow at sqlite"):
        registry.publish(folder, registry.find(f"{shirts}/1"), Entry())
    assert [each.number for each in registry.versions(shirts)] == [1]
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    assert client.search_runs([experiment], max_results=1)[0].info.status == "FAILED"


def test_an_alias_is_moved_and_goes_back_to_the_parent(registry: Registry, shirts: str, folder: Path) -> None:
    for number in (1, 2):
        published = registry.publish(folder, registry.find(f"{shirts}/{number}"), Entry())
        registry.move_alias("champion", published)
    served = f"{shirts}@champion"
    assert registry.step_back(served, "worse") == (f"{shirts}/3", f"{shirts}/2")
    assert registry.step_back(served) == (f"{shirts}/2", f"{shirts}/1")
    newest, middle, oldest = registry.versions(shirts)
    assert [each.aliases for each in (newest, middle, oldest)] == [(), (), ("champion",)]
    assert newest.tags["rolled_back"].endswith(" worse")
    with pytest.raises(OutputError, match="has no tag parent_version; nothing to go back to"):
        registry.step_back(served)


def test_without_an_alias_there_is_nothing_to_move(registry: Registry, shirts: str) -> None:
    with pytest.raises(InputError, match="give models:/NAME@ALIAS"):
        registry.step_back(f"{shirts}/1")


def test_a_deleted_parent_leaves_the_alias_where_it_is(
    registry: Registry, client: MlflowClient, shirts: str, folder: Path
) -> None:
    registry.move_alias("champion", registry.publish(folder, registry.find(f"{shirts}/1"), Entry()))
    client.delete_model_version(shirts.removeprefix("models:/"), "1")
    with pytest.raises(OutputError, match="not found"):
        registry.step_back(f"{shirts}@champion")
    assert registry.find(f"{shirts}@champion").version == 2


def test_a_local_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="there is no such file; say with --tracking-uri"),
        open_registry(f"sqlite:///{tmp_path}/mlflow.db"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_away_is_one_line_without_its_password() -> None:
    # nothing listens on port 9, and the connection is refused at once
    with (
        open_registry("http://ada:geheim@127.0.0.1:9") as registry,
        pytest.raises(OutputError, match=r"MLflow at http://ada:\*\*\*@127\.0\.0\.1:9: ") as error,
    ):
        registry.find("models:/shirts@champion")
    assert "geheim" not in str(error.value)
    assert "\n" not in str(error.value)
