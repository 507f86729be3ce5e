"""How MLflow names a model: `models:/name@alias`, `models:/name/3`, `models:/m-...` and `runs:/ID/model`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from finetune.errors import InputError

ADDRESS = re.compile(
    r"models:/(?P<model_id>m-[0-9a-f]{32})"
    r"|models:/(?P<name>[^/@]+)(?:/(?P<version>\d+|latest)|@(?P<alias>[^/@]+))?"
    r"|runs:/(?P<run_id>[^/]+)/(?P<run_model>.+)"
)
PREFIXES = ("models:/", "runs:/")


@dataclass(frozen=True)
class Address:
    """What was written. version: a number, or "latest". A registered model has a name, all others have an id."""

    text: str
    name: str | None = None
    version: str | None = None
    alias: str | None = None
    model_id: str | None = None
    run_id: str | None = None
    run_model: str | None = None


@dataclass(frozen=True)
class Found:
    """What an address leads to now. name, version: of a registered model. alias: the one in the address."""

    address: str
    name: str | None = None
    version: int | None = None
    alias: str | None = None
    model_id: str | None = None
    run_id: str | None = None

    @property
    def pinned(self) -> str:
        """The same model, also after an alias has moved on."""
        return f"models:/{self.name}/{self.version}" if self.name else self.address


def is_address(text: str) -> bool:
    """Whether a person means a model in MLflow rather than a file."""
    return text.startswith(PREFIXES)


def parse(text: str) -> Address:
    """Raises InputError where MLflow knows no such form."""
    found = ADDRESS.fullmatch(text)
    if found is None:
        raise InputError(
            f"{text}: expected models:/NAME@ALIAS, models:/NAME/VERSION, models:/m-ID or runs:/RUN_ID/MODEL"
        )
    return Address(text, **found.groupdict())
