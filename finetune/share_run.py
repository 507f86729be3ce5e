"""Measure one share of a calibration set into a file: for batch queues, in which no process waits for another."""

from __future__ import annotations

from pathlib import Path

from finetune.batchnorm.moments_file import SavedMoments
from finetune.batchnorm.targets import Targets
from finetune.errors import InputError
from finetune.progress import Progress
from finetune.recalibration.deployed_network import DeployedNetwork
from finetune.recalibration.merged_shares import write_moments
from finetune.recalibration.settings import ImageSource, Settings
from finetune.recalibration.subject import open_subject
from finetune.recalibration_run import choose_reference


def measure_share(
    model: str | Path, images: ImageSource, out: Path, settings: Settings, progress: Progress | None = None
) -> SavedMoments:
    """The moments of all sites on the share of `settings.shard`, written to `out`; nothing is published.

    Only one_pass can be measured apart: every site normalises with its own batch. What one site stores under layerwise
    decides what the next one sees, so that its shares have to meet (finetune.recalibration.meeting).
    Raises InputError, ModelError, DataError and OutputError; nothing is written then.
    """
    if settings.method != "one_pass":
        raise InputError(
            "--statistics: shares of layerwise statistics have to meet at every cut of the network: give --meet FOLDER "
            "instead, or measure with --method one_pass"
        )
    progress = progress or Progress()
    subject = open_subject(str(model), settings)
    opened = subject.open_images(images, settings)
    reference = choose_reference(subject, settings, progress.note).matched
    progress.phase(f"{settings.shard}: measuring {len(subject.model.sites)} sites on {opened.count} images")
    targets = Targets(subject.model.sites, settings.prior, reference.moments if reference else None)
    batches = subject.batches(opened, settings.batch_size)
    moments, count = DeployedNetwork(subject.model).one_pass(batches, targets.affine)
    paths = [site.path for site in subject.model.sites]
    saved = SavedMoments(dict(zip(paths, moments, strict=True)), count, (opened.digest,))
    write_moments(out, saved)
    return saved
