"""BN policies for a training of one's own: no recipe, no trainer, no MLflow.

applied = finetune.apply(finetune.Retrain(), model, images, steps_per_epoch=31)
model.compile(...)
model.fit(...)
applied.finish()
applied.prove()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from finetune.batchnorm import proof
from finetune.batchnorm.sites import find_sites, restored_settings
from finetune.batchnorm.timeline import Timeline, read
from finetune.describe import mean_shift, shifts_since
from finetune.errors import InputError, ProofError
from finetune.policies.base import Images, Policy, unheard

if TYPE_CHECKING:
    from finetune.policies.base import Finish
    from finetune.result import Check

BATCH = 64
"""Images a batch where an array does not say."""

PROOF_IMAGES = 16


def apply(
    policy: Policy,
    model: keras.Model,
    images: Any,
    *,
    steps_per_epoch: int = 100,
    warn: Callable[[str], None] = unheard,
) -> AppliedPolicy:
    """Find every BN site of `model`, do what the policy does before a training, and set every flag; then compile.

    images: what the statistics are measured on, as the model takes them: an array (count, height, width, channels), or
    batches that can be read more than once, such as a list or a tf.data.Dataset, with labels or without.
    steps_per_epoch: `momentum: auto` follows it. warn: takes sentences that a person should read.
    Raises InputError where the policy cannot be carried out on this model.
    """
    return AppliedPolicy(policy, model, images, steps_per_epoch, warn)


class AppliedPolicy:
    """A policy on a live model, from `apply` until it is proven. sites: all BN sites, in call order."""

    def __init__(
        self,
        policy: Policy,
        model: keras.Model,
        images: Any,
        steps_per_epoch: int,
        warn: Callable[[str], None],
    ) -> None:
        self.policy, self.model, self._warn = policy, model, warn
        self._images = opened(images)
        self.sites = find_sites(model, first_images(self._images, 1))
        problems = policy.problems(self.sites)
        if policy.frozen_epochs:
            problems.append(
                "freeze_last_epochs belongs to the trainer; leave it out and freeze in a second fit"
            )
        if problems:
            raise InputError(problems)
        self._trained = set[str]()
        self._finish: Finish | None = None
        self._pretrained = read(self.sites)
        self._start = policy.start(model, self.sites, self._images, warn)
        self._started = self._after_training = read(self.sites)
        self._borrowed = ExitStack()
        self._borrowed.enter_context(restored_settings(self.sites))
        self.prepare(steps_per_epoch)

    def prepare(self, steps_per_epoch: int) -> None:
        """Set every flag anew: again before every `compile` that follows a change of `trainable`.

        Sites in layers that are not trainable stay as they are, whatever the policy says of the others.
        """
        trained = [site for site in self.sites if site.layer.trainable]
        self.policy.prepare(self.sites, trained=trained, steps_per_epoch=steps_per_epoch)
        self._trained |= {site.path for site in trained if site.calls}

    def finish(self, loss: Callable[[], float] | None = None) -> Finish:
        """After the last `fit`: what the policy does then, and every site gets its own momentum back.

        loss: of the model as it is, on validation; what is measured anew is kept only where it does not rise, and
        always where no loss is given.
        """
        self._after_training = read(self.sites)
        done = self.policy.finish_training(
            self.model, self.sites, self._images, loss or (lambda: 0.0), self._warn
        )
        self._finish = done
        self._borrowed.close()
        return done

    def prove(self) -> tuple[Check, ...]:
        """What the policy promised, read off the numbers; `finish` comes before it.

        Raises ProofError with every promise that did not hold.
        """
        if self._finish is None:
            raise InputError(
                "prove: what the policy does after a training was not done; call finish() before"
            )
        timeline = Timeline(
            pretrained=self._pretrained,
            started=self._started,
            trained=self._after_training,
            finished=read(self.sites),
            start=self._start,
            finish=self._finish.measurement if self._finish.kept else None,
            trained_sites=frozenset(self._trained),
        )
        images = first_images(self._images, PROOF_IMAGES)
        checks = proof.check(self.policy.promises(self.sites), timeline, self.sites, self.model, images)
        broken = [f"{check.name}: {check.detail}" for check in checks if not check.passed]
        if broken:
            raise ProofError("the policy did not hold: " + "; ".join(broken))
        return checks


class RunningStatisticsShift(keras.callbacks.Callback):
    """How far the running statistics have moved since the training began, with the metrics of every epoch.

    Adds bn_shift/mean (standard deviations), bn_shift/log_std and bn_shift/kl, means over all sites and channels, to
    the logs, where the history and callbacks after this one find them.

    images: as for `apply`; one of them is enough. log: called with (metrics, epoch from 1), e.g. mlflow.log_metrics.
    """

    def __init__(self, images: Any, log: Callable[[dict[str, float], int], object] | None = None) -> None:
        super().__init__()
        self._example, self._log = first_images(opened(images), 1), log

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._sites = find_sites(self.model, self._example)
        self._before = read(self._sites)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        moved = mean_shift(shifts_since(self._before, self._sites))
        if logs is not None:
            logs.update(moved)
        if self._log:
            self._log(moved, epoch + 1)


def opened(images: Any) -> Images:
    """Images of any of the kinds that `apply` takes, to be read as often as is wanted."""
    if hasattr(images, "shape"):
        if len(images.shape) < 2 or not len(images):
            raise InputError(
                f"images: expected (count, height, width, channels), found {tuple(images.shape)}"
            )
        return lambda limit=None: _cut([images[i : i + BATCH] for i in range(0, len(images), BATCH)], limit)
    if not isinstance(images, Iterable) or isinstance(images, Iterator):
        raise InputError(
            f"images: expected an array, or batches that can be read more than once, found {type(images).__name__}; "
            "a generator can be kept as a list"
        )
    return lambda limit=None: _cut((each[0] if isinstance(each, tuple) else each for each in images), limit)


def _cut(batches: Iterable[Any], limit: int | None) -> Iterator[Any]:
    left = limit
    for batch in batches:
        if left is None:
            yield batch
        elif left > 0:
            yield batch[:left]
            left -= min(left, len(batch))
        else:
            return


def first_images(images: Images, count: int) -> Any:
    """A batch of at most `count`. Raises InputError where there is none."""
    parts, found = [], 0
    for batch in images(count):
        parts.append(np.asarray(batch))
        found += len(parts[-1])
    if not found:
        raise InputError("images: found none")
    return np.concatenate(parts)
