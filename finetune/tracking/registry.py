"""MLflow's model registry: what an address leads to, a new version of it, and which version an alias serves.

Here a store that fails is an error, since to publish is what was asked for.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from finetune.errors import FinetuneError, InputError, OutputError
from finetune.masking import masked
from finetune.tracking.address import Address, Found, is_address, parse
from finetune.tracking.manners import good_manners
from finetune.tracking.new_version import PARENT, Entry, log_version
from finetune.tracking.store import open_client, reason_in_words, require_there

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class RegisteredVersion:
    """aliases: those that serve it. tags: what `Entry` said of it."""

    number: int
    aliases: tuple[str, ...]
    date: str
    tags: Mapping[str, str]


@contextmanager
def open_registry(store: str) -> Iterator[Registry]:
    """Raises OutputError where a local store is not there: to ask it would make an empty one."""
    require_there(store)
    with good_manners(store):
        yield Registry(store)


def in_words(
    method: Callable[Concatenate[Registry, Arguments], Answer],
) -> Callable[Concatenate[Registry, Arguments], Answer]:
    """Whatever a network, a database or a disk raises becomes one line."""

    @wraps(method)
    def attempt(self: Registry, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        try:
            return method(self, *args, **kwargs)
        except FinetuneError:
            raise
        except Exception as error:
            reason = reason_in_words(self.store, error)
            raise OutputError(f"MLflow at {masked(self.store)}: {reason}") from error

    return attempt


class Registry:
    """Made by `open_registry`. Every method raises InputError, in one line."""

    def __init__(self, store: str) -> None:
        self.store = store
        self._client = self._opened()

    @in_words
    def _opened(self) -> MlflowClient:
        return open_client(self.store)

    @in_words
    def find(self, text: str) -> Found:
        address = parse(text)
        if address.name:
            return self._registered(address)
        if address.model_id:
            run = self._client.get_logged_model(address.model_id).source_run_id
            return Found(text, model_id=address.model_id, run_id=run)
        return Found(text, model_id=self._model_of_run(address), run_id=address.run_id)

    def _registered(self, address: Address) -> Found:
        name = str(address.name)
        if address.alias:
            version = self._client.get_model_version_by_alias(name, address.alias)
        elif address.version == "latest":
            version = max(self._all(name), key=lambda each: int(each.version))
        elif address.version:
            version = self._client.get_model_version(name, address.version)
        else:
            raise InputError(f"{address.text}: say which: models:/{name}@ALIAS or models:/{name}/VERSION")
        return Found(
            address.text, name, int(version.version), address.alias, _model_id(version), version.run_id
        )

    def _model_of_run(self, address: Address) -> str | None:
        outputs = self._client.get_run(address.run_id).outputs
        ids = [each.model_id for each in outputs.model_outputs] if outputs else []
        # a run of MLflow 2 holds its model as a folder of files, without an id
        return next((i for i in ids if self._client.get_logged_model(i).name == address.run_model), None)

    @in_words
    def download(self, found: Found, folder: Path) -> Path:
        """A copy of the model folder inside `folder`; returns it."""
        from mlflow.artifacts import download_artifacts

        target = str(folder / "downloaded")
        return Path(download_artifacts(found.pinned, None, None, target, self.store, self.store))

    @in_words
    def publish(self, folder: Path, parent: Found, entry: Entry) -> str:
        """Register a model folder as the next version, or log it where its parent is not registered; its address."""
        return log_version(self._client, self.store, folder, parent, entry)

    @in_words
    def move_alias(self, alias: str, published: str) -> None:
        """Let an alias serve a version from now on. published: `models:/name/4`."""
        address = parse(published)
        self._client.set_registered_model_alias(str(address.name), alias, str(address.version))

    @in_words
    def versions(self, text: str) -> list[RegisteredVersion]:
        """Every version of a registered model, newest first."""
        name = self._name(text)
        served: dict[int, list[str]] = {}
        for alias, version in sorted(self._client.get_registered_model(name).aliases.items()):
            served.setdefault(int(version), []).append(alias)
        return [
            RegisteredVersion(
                int(each.version),
                tuple(served.get(int(each.version), ())),
                _date(each.creation_timestamp),
                each.tags,
            )
            for each in sorted(self._all(name), key=lambda each: -int(each.version))
        ]

    @in_words
    def step_back(self, text: str, reason: str = "") -> tuple[str, str]:
        """Let the alias in an address serve the parent of what it serves now; returns both addresses.

        Raises OutputError where that has no parent, or the parent was deleted; the alias stays then.
        """
        found = self.find(text)
        if found.name is None or found.alias is None:
            raise InputError(
                f"{text}: to go back is to move an alias; give models:/NAME@ALIAS, as in models:/shirts@champion"
            )
        parent = self._client.get_model_version(found.name, str(found.version)).tags.get(PARENT)
        if parent is None:
            raise OutputError(f"{found.pinned}: has no tag {PARENT}; nothing to go back to")
        self._client.get_model_version(found.name, parent)
        self._client.set_registered_model_alias(found.name, found.alias, parent)
        said = f"{_date(time.time() * 1000)} {reason}".rstrip()
        self._client.set_model_version_tag(found.name, str(found.version), "rolled_back", said)
        return found.pinned, f"models:/{found.name}/{parent}"

    def _all(self, name: str) -> list[ModelVersion]:
        found = self._client.search_model_versions(f"name='{name}'")
        if not found:
            raise OutputError(f"models:/{name}: has no version")
        return list(found)

    def _name(self, text: str) -> str:
        name = parse(text).name
        if name is None:
            raise InputError(f"{text}: expected a registered model, models:/NAME")
        return name


def _model_id(version: ModelVersion) -> str | None:
    # a local database keeps it in the source alone
    kept = parse(version.source).model_id if is_address(version.source) else None
    return version.model_id or kept


def _date(milliseconds: float) -> str:
    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC).isoformat(timespec="seconds")
