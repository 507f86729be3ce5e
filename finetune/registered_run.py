"""Recalibrate a model that is registered in MLflow: the same measuring and the same gate, another place.

The whole MLflow model is copied, its weights file replaced, and the copy registered as the next version.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from finetune.errors import InputError
from finetune.progress import Progress
from finetune.recalibration.lineage import Lineage, read_lineage, read_provenance, write_lineage
from finetune.recalibration.mlflow_folder import put_back, take_out
from finetune.recalibration.settings import ImageSource, Settings
from finetune.recalibration.subject import open_subject
from finetune.recalibration_run import Recalibrated, carry_out
from finetune.tracking import store_uri
from finetune.tracking.address import Found
from finetune.tracking.new_version import Entry
from finetune.tracking.registry import Registry, open_registry

CHAMPION = "champion"


@dataclass(frozen=True, eq=False)
class Registered:
    """parent: what the address led to. address: of the new version, None under `dry`. alias: what serves it now."""

    done: Recalibrated
    parent: str
    address: str | None = None
    alias: str | None = None


def recalibrate(
    model: str,
    images: ImageSource,
    settings: Settings | None = None,
    *,
    store: str | None = None,
    promote: bool = False,
    alias: str | None = None,
    progress: Progress | None = None,
    dry: bool = False,
) -> Registered:
    """Measure, judge and register a model of MLflow anew, as the next version of the same name.

    model: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, `models:/m-ID` or `runs:/ID/MODEL`; the last two are logged
    and not registered. store: the tracking URI. promote: let `alias` serve it, by default the alias in the address.
    Raises what `finetune.recalibrate` raises, and InputError for the address or the store; nothing is registered then.
    """
    settings, progress = settings or Settings(), progress or Progress()
    dry = dry or not settings.publishes
    with TemporaryDirectory() as temporary, open_registry(store_uri(store)) as registry:
        found = registry.find(model)
        served = alias_to_move(found, alias) if promote else None
        with downloaded(registry, found, Path(temporary)) as (folder, path):
            subject = dataclasses.replace(open_subject(str(path), settings), address=model)
            version = Path(temporary, "version")
            done = carry_out(
                subject, images, settings, None if dry else lambda build: built(build, version), progress
            )
            if dry:
                return Registered(done, found.pinned)
            lineage = name_parent(version, found)
            put_back(version, folder)
        address = registry.publish(folder, found, entry(done, lineage, read_provenance(version)))
        if served:
            registry.move_alias(served, address)
    return Registered(dataclasses.replace(done, version=None), found.pinned, address, served)


def built(build: Callable[[Path], None], version: Path) -> Path:
    build(version)
    return version


def alias_to_move(found: Found, alias: str | None) -> str:
    """Raises InputError where the model is not registered."""
    if found.name is None:
        raise InputError(
            f"{found.address}: --promote moves an alias of a registered model; this one has none"
        )
    return alias or found.alias or CHAMPION


@contextmanager
def downloaded(registry: Registry, found: Found, temporary: Path) -> Iterator[tuple[Path, Path]]:
    """The model's folder and a copy of the model in it; what is wrong with them is told of the address."""
    folder = registry.download(found, temporary)
    try:
        yield folder, take_out(folder, temporary / "model")
    except InputError as error:
        places = (str(temporary / "model"), str(folder))
        problems = error.problems
        for place in places:
            problems = tuple(problem.replace(place, found.address) for problem in problems)
        raise type(error)(problems) from error


def name_parent(version: Path, found: Found) -> Lineage:
    """Write down which model of MLflow a built version was made from; returns its record."""
    made = read_lineage(version)
    if made is None:
        raise InputError(f"{version}: has no record of where it came from")
    parent = made.parent.model_copy(update={"name": found.pinned, "version": found.version})
    write_lineage(version, made.model_copy(update={"parent": parent}), read_provenance(version))
    return read_lineage(version) or made


def entry(done: Recalibrated, lineage: Lineage, provenance: dict[str, Any]) -> Entry:
    """What MLflow is told: params and tags to compare versions by, and the gate's report."""
    measured = done.measurement
    tags = {"parent_hash": lineage.parent.hash, "method": measured.method, "statistics": measured.kind}
    scores = {
        f"{when}/{name}": value
        for when, values in (("before", lineage.before), ("after", lineage.after))
        for name, value in values.items()
    }
    tags |= {
        f"accuracy_{when}": f"{scores[f'{when}/accuracy']:.4f}"
        for when in ("before", "after")
        if f"{when}/accuracy" in scores
    }
    tags |= {"forced": lineage.reason} if done.forced else {}
    gate = {
        "passed": done.verdict.passed,
        "forced": done.forced,
        "reason": lineage.reason,
        "checks": [dataclasses.asdict(check) for check in done.verdict.checks],
        "scores": {name: dataclasses.asdict(each) for name, each in done.verdict.scores.items()},
        "shifts": {path: dataclasses.asdict(each) for path, each in done.shifts.items()},
    }
    images = lineage.images.model_dump() if lineage.images else {}
    return Entry(
        params={"images": images, "prior": measured.prior},
        tags=tags,
        metrics=scores | {"residual": measured.residual, "bytes_changed": float(done.bytes_changed)},
        documents={"gate.json": gate, "provenance.json": provenance},
    )
