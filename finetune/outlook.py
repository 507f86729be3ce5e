"""What a training will do to the sites, found before it starts: which follow the batch, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune.batchnorm.horizon import Stretch, short_horizon
from finetune.batchnorm.positions import few_positions, too_few_positions
from finetune.batchnorm.sites import restored_settings
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


def outlook(
    trainee: Trainee, policy: Policy, stages: Sequence[Stage], steps: int, batch_size: int
) -> Outlook:
    """Carry out the policy's preparations for every stage of `steps` batches an epoch, and train nothing."""
    followed = followed_stretches(trainee, policy, stages, steps)
    followers = [site for site in trainee.sites if site.path in followed]
    problems = (*policy.problems(trainee.sites), *too_few_positions(followers, batch_size))
    warnings = () if problems else (*few_positions(followers, batch_size), *short_horizon(followed))
    return Outlook(problems, warnings)


def followed_stretches(
    trainee: Trainee, policy: Policy, stages: Sequence[Stage], steps: int
) -> dict[str, list[Stretch]]:
    """The stretches of training in which each site follows the batch, by site path; no entry where it never does."""
    followed: dict[str, list[Stretch]] = {}
    with restored_settings(trainee.sites):
        for number, stage in enumerate(stages):
            trained = choose_trained(trainee, stage.train)
            policy.prepare(trainee.sites, trained=trained, steps_per_epoch=steps)
            epochs = following_epochs(policy, stages, number)
            for site in trainee.sites:
                if site.calls and site.mode == "batch":
                    followed.setdefault(site.path, []).append(Stretch(site.momentum, steps * epochs))
    return followed
