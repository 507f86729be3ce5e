"""How far what a deployed model sees today is from what its statistics stand for; nothing is written.

Compared with the reference statistics where the model carries some, since a model that was trained with frozen
statistics is far from its stored ones on any day; with the stored ones elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from finetune.batchnorm.shift import Shift, shift
from finetune.errors import ModelError
from finetune.progress import Progress
from finetune.recalibration.carried_reference import carried
from finetune.recalibration.deployed_network import DeployedNetwork
from finetune.recalibration.settings import ImageSource, Settings
from finetune.recalibration.subject import open_subject


@dataclass(frozen=True, eq=False)
class Drift:
    """shifts: by site path, in call order, from what the statistics stand for to what the site sees now."""

    address: str
    images: int
    against: Literal["reference", "stored"]
    shifts: dict[str, Shift]

    @property
    def overall(self) -> float:
        """The mean over sites of the shift of means, in standard deviations."""
        return fmean(each.mean for each in self.shifts.values())

    @property
    def worst(self) -> str:
        """The site whose mean moved furthest."""
        return max(self.shifts, key=lambda path: self.shifts[path].mean)


def drift(
    model: str, images: ImageSource, settings: Settings | None = None, progress: Progress | None = None
) -> Drift:
    """Measure it on images of today. Raises what `finetune.recalibrate` raises for them."""
    settings, progress = settings or Settings(), progress or Progress()
    subject = open_subject(model, settings)
    progress.phase(str(subject.wanted))
    seen = subject.open_images(images, settings)
    for words in seen.notes:
        progress.note(words)
    sites = subject.model.sites
    reference = carried(subject.path, sites)
    try:
        moments, count = DeployedNetwork(subject.model).input_moments(
            subject.batches(seen, settings.batch_size)
        )
    except ValueError as error:
        raise ModelError(f"{model}: {error}") from error
    shifts = {
        site.path: shift(
            reference.moments[site.path].statistics() if reference else site.statistics,
            measured.statistics(),
            site.epsilon,
        )
        for site, measured in zip(sites, moments, strict=True)
    }
    return Drift(model, count, "reference" if reference else "stored", shifts)
