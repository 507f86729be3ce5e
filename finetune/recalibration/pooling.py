"""How the moments of this process are put together with those of others that measure shares of the same set."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from finetune.batchnorm.layerwise import Combine
from finetune.errors import InputError
from finetune.recalibration.meeting import Meeting, identity_of
from finetune.recalibration.merged_shares import moments_for
from finetune.recalibration.model_hash import model_hash
from finetune.recalibration.settings import Settings
from finetune.recalibration.subject import ImageSet, Subject


@dataclass(frozen=True, eq=False)
class Pooling:
    """combine: what finetune.batchnorm.measure.measure_anew takes. digests: of the images of each share, once all is
    measured."""

    combine: Combine
    digests: Callable[[], Sequence[str]]

    @property
    def digest(self) -> str:
        """Of the images of all shares: SHA-256 of their sorted hashes, or the hash of the only one; empty where a file
        of shares does not hold them."""
        hashes = sorted(self.digests())
        if not hashes:
            return ""
        return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def pooling(subject: Subject, images: ImageSet, settings: Settings, note: Callable[[str], None]) -> Pooling:
    """With the other shares where there are any. Raises InputError where it is not said how they meet, DataError where
    a file of merged shares is none or of another network."""
    if settings.merged is not None:
        merged = moments_for(subject.model.sites, settings.merged)
        note(
            f"statistics of all shares out of {settings.merged}; the images are for the gate, which cannot measure "
            "those of the shares once more"
        )
        return Pooling(lambda own: list(merged.moments.values()), lambda: merged.digests)
    if settings.shard is None:
        return Pooling(tuple, lambda: (images.digest,))
    if settings.meet is None:
        raise InputError(
            f"--shard {settings.shard.number}/{settings.shard.of}: expected --meet FOLDER, where the shares meet, or "
            "--statistics FILE, where this one goes"
        )
    if not settings.publishes:
        note(f"{settings.shard}: the first one judges and publishes")
    identity = identity_of(model_hash(subject.version), images.source, settings)
    meeting = Meeting(settings.meet, settings.shard, identity, images.digest)
    return Pooling(meeting.combine, lambda: meeting.digests)
