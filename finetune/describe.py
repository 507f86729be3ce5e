"""What a run found out, in words and plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from finetune.batch_sizes import sizes_in_words
from finetune.batchnorm.shift import Shift, shift
from finetune.batchnorm.sites import BNSite
from finetune.batchnorm.timeline import Reading
from finetune.policies.base import Finish
from finetune.result import SiteRecord
from finetune.stage import Stage


def stage_in_words(number: int, stages: Sequence[Stage]) -> str:
    """`stage 1 of 2: train head, 2 epochs, sgd at 0.1`; number counts from 0."""
    stage = stages[number]
    part = stage.train if isinstance(stage.train, str) else f"from {stage.train.layer} on"
    epochs = "1 epoch" if stage.epochs == 1 else f"{stage.epochs} epochs"
    title = f"stage {number + 1} of {len(stages)}"
    rate = f"{stage.optimizer} at {stage.learning_rate:g}"
    if stage.rate_at_first_layer != 1:
        rate += f" ({stage.rate_at_first_layer * stage.learning_rate:g} at the first layer)"
    return f"{title}: train " + ", ".join(filter(None, (part, epochs, rate, sizes_in_words(stage))))


def finish_in_words(finish: Finish, frozen_epochs: int = 0) -> tuple[str, ...]:
    """What the policy measured when the statistics had followed for the last time and whether it was kept; nothing
    where it measured nothing. frozen_epochs: how many epochs come after it."""
    if finish.measurement is None:
        return ()
    last = "the last epoch" if frozen_epochs == 1 else f"the last {frozen_epochs} epochs"
    when = f"before {last}" if frozen_epochs else "after training"
    outcome = "kept" if finish.kept else "not kept: the running statistics are those of the training"
    return (
        f"{when} the running statistics were measured anew on {finish.measurement.images} images: "
        f"validation loss {finish.loss_before:.4f} -> {finish.loss_after:.4f}, {outcome}",
    )


def shifts_since(readings: Sequence[Reading], sites: Sequence[BNSite]) -> list[Shift]:
    """The shift of every built site since `readings`, which are of the same sites."""
    built = [site for site in sites if site.built]
    return [
        shift(before.statistics, site.statistics, site.epsilon)
        for before, site in zip(readings, built, strict=True)
    ]


def mean_shift(shifts: Sequence[Shift]) -> dict[str, float]:
    """Means over the sites, under the names that MLflow shows; nothing where there is no site."""
    if not shifts:
        return {}
    return {
        "bn_shift/mean": fmean(moved.mean for moved in shifts),
        "bn_shift/log_std": fmean(moved.log_std for moved in shifts),
        "bn_shift/kl": fmean(moved.kl for moved in shifts),
    }


def site_records(
    pretrained: Sequence[Reading], sites: Sequence[BNSite], momentum: Mapping[str, float], batch_size: int
) -> tuple[SiteRecord, ...]:
    """One row a built site. momentum: what each path was trained with."""
    built = [site for site in sites if site.built]
    return tuple(
        SiteRecord(
            index=index,
            path=site.path,
            channels=site.channels,
            momentum=momentum[site.path],
            epsilon=site.epsilon,
            positions=site.positions * batch_size,
            shift_mean=moved.mean,
            shift_log_std=moved.log_std,
            shift_kl=moved.kl,
        )
        for index, (site, moved) in enumerate(zip(built, shifts_since(pretrained, built), strict=True))
    )
