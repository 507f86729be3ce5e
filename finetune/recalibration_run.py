"""Recalibrate a model in service: measure its running statistics on images of today, and publish a new version.

No training code and no labels are needed, the weights stay, and nothing is published that the gate refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from finetune.batchnorm.measure import Measurement
from finetune.batchnorm.moments_file import SavedMoments, save
from finetune.batchnorm.shift import Shift
from finetune.errors import GateError, ModelError
from finetune.progress import Progress
from finetune.provenance import versions
from finetune.recalibration.before_after import BeforeAfter, first_moments, measure_subject
from finetune.recalibration.carried_reference import APART, apart, as_stored, carried, carried_on
from finetune.recalibration.class_balance import CLASS_BALANCE
from finetune.recalibration.companions import reference_file
from finetune.recalibration.deployed_network import DeployedNetwork
from finetune.recalibration.gate import Verdict, judge
from finetune.recalibration.lineage import Images, Judgement, Lineage, Parent, read_provenance, write_lineage
from finetune.recalibration.model_hash import model_hash
from finetune.recalibration.pooling import pooling
from finetune.recalibration.publish import publish
from finetune.recalibration.reading_inputs import KEY
from finetune.recalibration.refused import keep_refusal
from finetune.recalibration.scale_check import implausible
from finetune.recalibration.settings import ImageSource, Settings
from finetune.recalibration.subject import ImageSet, Subject, open_subject
from finetune.recalibration.versions import place_of

NO_REFERENCE = (
    "no reference statistics beside the model: its statistics are measured plainly, which ruins a model that was "
    "trained with frozen statistics; --reference-images DIR with images it was trained on tells, and repairs it"
)


NO_MIX = "the gate did not judge the mix of classes: what the model puts out are no probabilities of one class an image"


@dataclass(frozen=True, eq=False)
class Recalibrated:
    """What came of it. version: the folder that was published, None under `dry`. shifts: by site path, how far its
    statistics moved. notes: what a person should know."""

    address: str
    format: str
    version: Path | None
    measurement: Measurement
    verdict: Verdict
    forced: bool
    shifts: dict[str, Shift]
    notes: tuple[str, ...]
    bytes_changed: int = 0


Publisher = Callable[[Callable[[Path], None]], Path]
"""Takes what builds a version at a path, and makes it appear; returns where."""


def recalibrate(
    model: str | Path,
    images: ImageSource,
    out: Path | None = None,
    settings: Settings | None = None,
    *,
    progress: Progress | None = None,
    dry: bool = False,
) -> Recalibrated:
    """Measure, judge and publish `model` anew as the next version in the folder `out`.

    model: a SavedModel, a .keras, .h5 or .onnx file, or a folder of numbered versions, of which the newest is taken.
    out: left out, the folder that the model is a version of. dry: publish nothing.
    Raises ModelError where the model cannot be recalibrated, DataError for the images, OutputError for the place,
    GateError where the gate refuses; nothing is written then.
    """
    settings, progress = settings or Settings(), progress or Progress()
    subject = open_subject(str(model), settings)
    place = place_for(subject, out)
    return carry_out(
        subject, images, settings, None if dry else lambda build: publish(build, place), progress
    )


def carry_out(
    subject: Subject,
    source: ImageSource,
    settings: Settings,
    publisher: Publisher | None,
    progress: Progress,
) -> Recalibrated:
    """The recalibration of an opened model, wherever it is published."""
    notes: list[str] = []

    def note(words: str) -> None:
        notes.append(words)
        progress.note(words)

    progress.phase(f"{subject.address}: {subject.model.format}, {len(subject.model.sites)} BN sites")
    progress.phase(str(subject.wanted))
    images = subject.open_images(source, settings)
    for words in (*images.notes, *unused(subject)):
        note(words)
    warn_of_scale(subject, images, settings, note)
    reference = choose_reference(subject, settings, note)
    kind = "matched to reference statistics" if reference.matched else "plain"
    progress.phase(
        f"measuring {len(subject.model.sites)} sites on {images.count} images, {settings.method}, {kind}"
    )
    together = pooling(subject, images, settings, note)
    found = measure_subject(
        subject, images, reference.matched, settings, note, progress.share, together.combine
    )
    verdict = judge(found.evidence, settings.tolerance)
    if found.after is not None and not any(check.name == CLASS_BALANCE for check in verdict.checks):
        note(NO_MIX)
    if settings.publishes:
        refuse(found, verdict, settings)
    lineage = record(found, verdict, settings, together.digest)
    changed: list[int] = []

    def build(folder: Path) -> None:
        changed.append(write_version(found, reference.carried, lineage, folder))

    version = publisher(build) if publisher and settings.publishes else None
    return Recalibrated(
        address=subject.address,
        format=subject.model.format,
        version=version,
        measurement=found.measurement,
        verdict=verdict,
        forced=not verdict.passed,
        shifts=found.shifts,
        notes=tuple(notes),
        bytes_changed=sum(changed),
    )


def place_for(subject: Subject, out: Path | None) -> Path:
    """The folder of versions that the new one goes to. Raises ModelError where neither model nor person names one."""
    found = out or place_of(subject.path)
    if found is None:
        raise ModelError(
            f"{subject.address}: lies in no folder of numbered versions; say with --out DIR where the new version "
            "goes, and it becomes DIR/1"
        )
    return found


def unused(subject: Subject) -> list[str]:
    paths = subject.model.unused
    if not paths:
        return []
    return [
        f"{len(paths)} sites hold statistics that no inference reads, and keep them: {', '.join(paths[:3])}"
    ]


def warn_of_scale(
    subject: Subject, images: ImageSet, settings: Settings, note: Callable[[str], None]
) -> None:
    """Say so where the first site sees what no camera makes of images in the right scale."""
    site, scale = subject.model.sites[0], subject.wanted.preprocessing.scale
    batches = subject.batches(images, settings.batch_size)
    moments, _ = first_moments(DeployedNetwork(subject.model), batches)
    said = implausible(site.statistics, {scale: moments[0].statistics()}, scale, site.epsilon)
    if said:
        note(said)


@dataclass(frozen=True, eq=False)
class ChosenReference:
    """matched: what the measured statistics are matched to; None is plain. carried: what goes on with the model."""

    matched: SavedMoments | None = None
    carried: SavedMoments | None = None


def choose_reference(subject: Subject, settings: Settings, note: Callable[[str], None]) -> ChosenReference:
    """Raises ModelError where matched is asked for without a reference, GateError where plain ruins the model."""
    known = known_reference(subject, settings)
    if settings.statistics == "matched" and known is None:
        raise ModelError(
            f"{subject.address}: matched statistics need a reference, found none beside the model; "
            "measure it with --reference-images DIR, images that the model was trained on"
        )
    if settings.statistics != "plain":
        if known is None:
            note(NO_REFERENCE)
        return ChosenReference(known, known)
    if known is None:
        return ChosenReference()
    distance = apart(subject.model.sites, known.moments)
    if distance > APART and settings.force is None:
        raise GateError(
            f"{subject.address}: stored statistics are {distance:.1f} standard deviations from those of its own "
            f"training images, at most {APART:g} for plain statistics: measuring it plainly ruins it; leave --plain out"
        )
    # near enough for what it stores to be its own reference; beyond that nothing is known any more
    return ChosenReference(None, as_stored(subject.model.sites, known) if distance <= APART else None)


def known_reference(subject: Subject, settings: Settings) -> SavedMoments | None:
    """Measured on source images where these are given, else the one that the model carries."""
    if settings.reference_images is None:
        return carried(subject.path, subject.model.sites)
    source = subject.open_images(
        ImageSource(folder=settings.reference_images), Settings(samples=2048, seed=settings.seed)
    )
    network = DeployedNetwork(subject.model)
    moments, count = network.input_moments(subject.batches(source, settings.batch_size))
    paths = [site.path for site in subject.model.sites]
    return SavedMoments(dict(zip(paths, moments, strict=True)), count)


def refuse(found: BeforeAfter, verdict: Verdict, settings: Settings) -> None:
    """Raise GateError where a check failed and no reason was given to pass it over; the report is kept."""
    if not verdict.passed and settings.force is None:
        kept = keep_refusal(settings.refused, found, verdict)
        raise GateError(f"{found.subject.address}: not published: {verdict.reason}; {kept}")


def record(found: BeforeAfter, verdict: Verdict, settings: Settings, digest: str) -> Lineage:
    """digest: of the images that were measured, those of other shares included."""
    subject, measurement = found.subject, found.measurement
    place = place_of(subject.path)
    number = int(subject.version.name) if place else None
    return Lineage(
        kind="recalibration",
        parent=Parent(name=subject.version.name, hash=model_hash(subject.version), version=number),
        images=Images(source=found.images.source, count=measurement.images, digest=digest),
        method=measurement.method,
        statistics=measurement.kind,
        prior=measurement.prior,
        before=found.scores(found.before),
        after=found.scores(found.after),
        gate=tuple(Judgement(name=c.name, passed=c.passed, detail=c.detail) for c in verdict.checks),
        forced=not verdict.passed,
        reason=settings.force or "",
        packages=versions(),
    )


def write_version(found: BeforeAfter, reference: SavedMoments | None, lineage: Lineage, folder: Path) -> int:
    """A version with the statistics in force, its reference and its record; how many bytes of the model differ."""
    subject = found.subject
    if subject.path.is_dir():
        model = folder
    else:
        folder.mkdir()
        model = folder / subject.path.name
    changed = subject.model.write(model)
    file = reference_file(model)
    # the one that was copied belongs to the earlier statistics
    file.unlink(missing_ok=True)
    if reference is not None:
        file.parent.mkdir(exist_ok=True)
        save(file, carried_on(reference, found.stored, subject.model.sites))
    trained = read_provenance(subject.version) | {KEY: subject.wanted.preprocessing.model_dump(mode="json")}
    write_lineage(folder, lineage, trained)
    return changed
