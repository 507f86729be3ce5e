"""What was published in a place, and the way back: what was served before is published once more, as the newest.

Servers take the highest number, so going back means going forward with old bytes. Nothing is ever deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import ModelError, OutputError
from finetune.recalibration.lineage import (
    Lineage,
    Parent,
    read_lineage,
    read_provenance,
    write_lineage,
)
from finetune.recalibration.model_hash import model_hash
from finetune.recalibration.publish import copy_model, publish
from finetune.recalibration.versions import newest, numbers, version_folder


@dataclass(frozen=True)
class Version:
    """lineage: None where nothing says where it came from; problem: one line where what says so is damaged."""

    number: int
    folder: Path
    lineage: Lineage | None = None
    problem: str | None = None

    @property
    def story(self) -> str:
        """In one line, what it was made from."""
        if self.problem:
            return self.problem
        return "no record of where it came from" if self.lineage is None else told(self.lineage)


def history(place: Path) -> list[Version]:
    """Every version, newest first. Raises OutputError where the place holds none."""
    found = numbers(place)
    if not found:
        raise OutputError(
            f"{place}: expected a folder with numbered versions ({place / '1'}, ...), found none"
        )
    return [_version(place, number) for number in reversed(found)]


def rollback(place: Path, reason: str = "") -> Path:
    """Publish what was served before the newest version, as a new one; returns its folder.

    A second rollback goes further back, not to and fro. Raises OutputError where there is nothing to go back to,
    and ModelError where those files are not what was published.
    """
    versions = {version.number: version for version in history(place)}
    given_up = max(versions)
    target = _before(versions, place)
    original = _content(target)
    lineage = Lineage(
        kind="rollback",
        parent=Parent(name=str(original), hash=_intact(target), version=original),
        rolled_back=given_up,
        reason=reason,
    )
    return republish(target.folder, place, lineage)


def adopt(model: Path, place: Path) -> Path:
    """Publish a byte copy of a version that lies elsewhere into an empty place, so that there is a way back to it.

    model: a version folder. Raises OutputError where the place has versions.
    """
    if newest(place):
        raise OutputError(f"{place}: expected no version yet, found {', '.join(map(str, numbers(place)))}")
    lineage = Lineage(kind="original", parent=Parent(name=model.name, hash=model_hash(model)))
    return republish(model, place, lineage)


def republish(source: Path, place: Path, lineage: Lineage) -> Path:
    """The model's bytes as they are, under a record of their own. Raises ModelError where they changed meanwhile."""
    trained = _trained(source)

    def build(folder: Path) -> None:
        copy_model(source, folder)
        if model_hash(folder) != lineage.parent.hash:
            raise ModelError(f"{source}: changed while it was copied; nothing was published")
        write_lineage(folder, lineage, trained)

    return publish(build, place)


def told(lineage: Lineage) -> str:
    """How a version came to be, in one line."""
    parent = f"{lineage.parent.name} ({lineage.parent.hash[:12]})"
    if lineage.kind == "original":
        return f"{lineage.date} copied from {parent}"
    if lineage.kind == "rollback":
        why = f": {lineage.reason}" if lineage.reason else ""
        return f"{lineage.date} rolled back from {lineage.rolled_back} to {parent}{why}"
    images = f" on {lineage.images.count} images of {lineage.images.source}" if lineage.images else ""
    words = ", ".join(word for word in (lineage.statistics, lineage.method) if word)
    how = f" ({words})" if words else ""
    numbers_told = "".join(
        f"; {name} {lineage.before[name]:.3f} -> {value:.3f}"
        for name, value in lineage.after.items()
        if name in lineage.before
    )
    forced = f"; against the gate: {lineage.reason}" if lineage.forced else ""
    return f"{lineage.date} recalibrated{how} from {parent}{images}{numbers_told}{forced}"


def _version(place: Path, number: int) -> Version:
    folder = version_folder(place, number)
    try:
        return Version(number, folder, read_lineage(folder))
    except ModelError as error:
        return Version(number, folder, problem=str(error))


def _before(versions: Mapping[int, Version], place: Path) -> Version:
    """What was served before the bytes that the newest version holds."""
    number = max(versions)
    own = _content(versions[number])
    earlier = [other for other in versions if other < own]
    if not earlier:
        once_more = "" if own == number else f", which is version {own} once more"
        raise OutputError(f"{place}: nothing lies before version {number}{once_more}; nothing to go back to")
    return versions[max(earlier)]


def _content(version: Version) -> int:
    """Whose bytes a version holds: its own, or by a rollback those of an earlier one, which may be gone by now."""
    lineage = version.lineage
    if lineage is None or lineage.kind != "rollback" or lineage.parent.version is None:
        return version.number
    return min(lineage.parent.version, version.number)


def _intact(version: Version) -> str:
    """The hash of its files, which must be what was published."""
    found = model_hash(version.folder)
    recorded = version.lineage.hash if version.lineage else ""
    if recorded and recorded != found:
        raise ModelError(
            f"{version.folder}: its files are not what was published (hash {found[:12]}, "
            f"recorded {recorded[:12]}); restore them, or publish a good version by hand"
        )
    return found


def _trained(source: Path) -> dict[str, Any]:
    try:
        return read_provenance(source)
    except (
        ModelError
    ):  # a damaged record about a model whose files are whole must not block the way back to it
        return {}
