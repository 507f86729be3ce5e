"""Where processes that measure shares of one set meet: a folder that all of them see, and no network between them.

At every cut of the network each writes the moments of its share and waits for those of the others. All merge them in
the same order, so that what is stored is the same in all, to the bit, and what follows the cut is computed under it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.batchnorm.moments import PopulationMoments
from finetune.batchnorm.moments_file import SavedMoments, load, merge, save
from finetune.errors import DataError, OutputError
from finetune.recalibration.settings import Settings
from finetune.recalibration.shard import Shard

PATIENCE = 600.0
"""Seconds that one share waits for the others where nothing is said."""

POLL = 0.05


def identity_of(model: str, source: str, settings: Settings) -> str:
    """A hash of what all shares of one measurement have in common. model: its hash; source: name of the images."""
    settled = (settings.method, settings.statistics, settings.samples, settings.prior, settings.seed)
    told = repr((model, source, settled, settings.batch_size, sorted(settings.told.items())))
    return hashlib.sha256(told.encode()).hexdigest()[:16]


@dataclass(eq=False)
class Meeting:
    """One share's part in it; `combine` is what finetune.batchnorm.measure.measure_anew takes.

    identity: of model and settings, which must be those of the others. digest: of the own images; digests: those of all
    shares, once they have met.
    """

    folder: Path
    shard: Shard
    identity: str
    digest: str
    patience: float = PATIENCE
    digests: tuple[str, ...] = ()
    steps: int = 0

    def combine(self, own: Sequence[PopulationMoments]) -> Sequence[PopulationMoments]:
        """The moments of all shares. Raises DataError where one does not come, or is of another measurement."""
        step, self.steps = self.steps, self.steps + 1
        mine = {f"{self.identity} {number}": moments for number, moments in enumerate(own)}
        self._write(self._file(step, self.shard.number), SavedMoments(mine, 0, (self.digest,)))
        shares = [self._awaited(step, number) for number in range(1, self.shard.of + 1)]
        try:
            merged = merge(shares)
        except ValueError as error:
            raise DataError(
                f"{self.folder}: the shares were given other models, images or settings; start all of them anew with "
                "the same ones, in an empty folder"
            ) from error
        self.digests = merged.digests
        return list(merged.moments.values())

    def _file(self, step: int, number: int) -> Path:
        return self.folder / f"cut-{step:04d}-share-{number:04d}.npz"

    def _write(self, file: Path, saved: SavedMoments) -> None:
        if file.exists():
            raise OutputError(
                f"{file}: is there already, from an earlier measurement; empty the folder, and start all shares anew"
            )
        part = file.with_suffix(".part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save(part, saved)
            part.replace(file)
        except OSError as error:
            raise OutputError(f"{file}: cannot be written ({error.strerror})") from error

    def _awaited(self, step: int, number: int) -> SavedMoments:
        file, until = self._file(step, number), time.monotonic() + self.patience
        while not file.exists():
            if time.monotonic() > until:
                raise DataError(
                    f"{self.folder}: share {number} of {self.shard.of} has not come to cut {step} within "
                    f"{self.patience:g} s; see what became of it, and start all shares anew in an empty folder"
                )
            time.sleep(POLL)
        try:
            return load(file)
        except (OSError, ValueError) as error:
            raise DataError(f"{file}: cannot be read ({error}); start all shares anew") from error
