"""What a training will do to the sites, found before it starts: which follow the batch, and for how long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune.batch_sizes import legs
from finetune.batchnorm.horizon import Stretch, short_horizon
from finetune.batchnorm.positions import few_positions, too_few_positions
from finetune.batchnorm.sites import BNSite, restored_settings
from finetune.policies.base import Policy
from finetune.train import following_epochs
from finetune.trained_part import Trainee, choose_trained

if TYPE_CHECKING:
    from finetune.stage import Stage


@dataclass(frozen=True)
class Outlook:
    """problems: why the training cannot be done, one line each. warnings: what a person should know before it."""

    problems: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Followed:
    """A stretch of stage `number` (from 0) in which a site follows the batch. key: what says the batch size."""

    site: BNSite
    stretch: Stretch
    batch_size: int
    key: str
    number: int


def outlook(
    trainee: Trainee,
    policy: Policy,
    stages: Sequence[Stage],
    steps: int,
    batch_size: int,
    *,
    images: int | None = None,
) -> Outlook:
    """Carry out the policy's preparations for every stage, and train nothing.

    steps, batch_size: of an epoch of the stages that have no batch size of their own. images: in the training
    split, by which the others count; steps x batch_size where left out.
    """
    followed = list(_followed(trainee, policy, stages, batch_size, images or steps * batch_size))
    problems, warnings = list(policy.problems(trainee.sites)), list[str]()
    for (size, key), sites in _at_their_smallest_batches(followed).items():
        problems += too_few_positions(sites, size, key)
        warnings += few_positions(sites, size, key)
    warnings += short_horizon(_stretches(followed))
    warnings += _accumulated(stages, followed)
    if not any(site.calls for site in trainee.sites):
        warnings.append(f"the network has no BN site: the policy {policy.policy} has nothing to act on")
    return Outlook(tuple(problems), () if problems else tuple(warnings))


def followed_stretches(
    trainee: Trainee, policy: Policy, stages: Sequence[Stage], batch_size: int, images: int
) -> dict[str, list[Stretch]]:
    """The stretches of training in which each site follows the batch, by site path; no entry where it never does."""
    return _stretches(_followed(trainee, policy, stages, batch_size, images))


def _followed(
    trainee: Trainee, policy: Policy, stages: Sequence[Stage], batch_size: int, images: int
) -> Iterator[Followed]:
    with restored_settings(trainee.sites):
        for number, stage in enumerate(stages):
            key = "data.batch_size" if stage.batch_size is None else f"stages[{number}].batch_size"
            trained = choose_trained(trainee, stage.train)
            for leg in legs(stage, batch_size, images, range(following_epochs(policy, stages, number))):
                policy.prepare(trainee.sites, trained=trained, steps_per_epoch=leg.steps)
                steps = leg.steps * len(leg.epochs)
                for site in trainee.sites:
                    if site.calls and site.mode == "batch":
                        yield Followed(site, Stretch(site.momentum, steps), leg.batch_size, key, number)


def _accumulated(stages: Sequence[Stage], followed: Sequence[Followed]) -> Iterator[str]:
    """What accumulation does not do: the moments stay those of one batch."""
    for number, stage in enumerate(stages):
        here = [one for one in followed if one.number == number]
        if stage.accumulate > 1 and here:
            sites, size = len({one.site.path for one in here}), min(one.batch_size for one in here)
            yield (
                f"stages[{number}].accumulate: {stage.accumulate} batches make one step, but the moments that "
                f"{sites} BN site{'s' * (sites > 1)} follow are those of one batch of {size} images, not of "
                f"{size * stage.accumulate}; where that is too few, freeze the sites"
            )


def _stretches(followed: Iterable[Followed]) -> dict[str, list[Stretch]]:
    found: dict[str, list[Stretch]] = {}
    for one in followed:
        found.setdefault(one.site.path, []).append(one.stretch)
    return found


def _at_their_smallest_batches(followed: Iterable[Followed]) -> dict[tuple[int, str], list[BNSite]]:
    """The sites that follow, by the size and the key of the smallest batches that they follow."""
    smallest: dict[str, Followed] = {}
    for one in followed:
        if one.site.path not in smallest or one.batch_size < smallest[one.site.path].batch_size:
            smallest[one.site.path] = one
    found: dict[tuple[int, str], list[BNSite]] = {}
    for one in smallest.values():
        found.setdefault((one.batch_size, one.key), []).append(one.site)
    return found
