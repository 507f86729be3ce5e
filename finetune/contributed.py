"""Policies, backbones, datasets and formats of other packages, found by the entry points that these declare:

[project.entry-points."finetune.policies"]
gentle = "my_package:Gentle"
"""

from __future__ import annotations

import functools
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from finetune.errors import InputError

GROUPS = ("finetune.policies", "finetune.backbones", "finetune.datasets", "finetune.formats")

Base = TypeVar("Base")


def with_contributed(
    own: tuple[type[Base], ...], group: str, base: type[Base], key: str
) -> tuple[type[Base], ...]:
    """The toolkit's own components, and those of other packages.

    key: the field, `policy` or `source`, by whose one value a recipe tells them apart. Raises InputError, one line for
    each that cannot be imported, is no subclass of `base`, or has the name of another.
    """
    known = {name_of(kind, key): f"finetune's own {kind.__name__}" for kind in own}
    found, problems = list(own), []
    for entry in contributions(group):
        try:
            kind = checked(entry, base, key)
            if name_of(kind, key) in known:
                raise _Unusable(
                    f"its {key} {name_of(kind, key)!r} is that of {known[name_of(kind, key)]}; rename it"
                )
        except _Unusable as reason:
            problems.append(f"{in_words(entry)}: {reason}")
            continue
        known[name_of(kind, key)] = in_words(entry)
        found.append(kind)
    if problems:
        raise InputError(problems)
    return tuple(found)


def contributions(group: str) -> list[EntryPoint]:
    """Those of one group, in the order of their names."""
    return sorted((entry for entry in _declared() if entry.group == group), key=lambda entry: entry.name)


@functools.cache
def _declared() -> tuple[EntryPoint, ...]:
    # looks into the metadata of every installed package, so only once
    found = entry_points()
    return tuple(entry for group in GROUPS for entry in found.select(group=group))


class _Unusable(Exception):
    """Why a contribution cannot be used."""


def checked(entry: EntryPoint, base: type[Base], key: str) -> type[Base]:
    kind = loaded(entry)
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise _Unusable(f"expected a subclass of {base.__module__}.{base.__name__}, got {kind!r}")
    default = getattr(kind, "model_fields", {}).get(key)
    if default is None or not isinstance(default.default, str):
        raise _Unusable(f'expected a field {key}: Literal["NAME"] = "NAME" that a recipe names it by')
    return kind


def loaded(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    # whatever another package raises when it is imported
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise _Unusable(f"cannot be imported ({reason}); repair or uninstall the package") from error


def opener(entry: EntryPoint) -> Any:
    """A format's. Raises InputError where it cannot be imported."""
    try:
        return loaded(entry)
    except _Unusable as reason:
        raise InputError(f"{in_words(entry)}: {reason}") from reason


def name_of(kind: Any, key: str) -> str:
    return str(kind.model_fields[key].default)


def in_words(entry: EntryPoint) -> str:
    package = entry.dist.name if entry.dist else "a package"
    return f"{entry.group} {entry.name} ({entry.value}) of {package}"
