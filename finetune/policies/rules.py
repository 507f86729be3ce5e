"""Several policies in one network: each site under the first whose glob matches its path."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from finetune.batchnorm.naming import some
from finetune.batchnorm.promise import Promise
from finetune.policies.base import Finish, Images, Policy, UniformPolicy, Warn, unheard
from finetune.policies.following import Following
from finetune.policies.known import OnePolicy
from finetune.policies.recalibrate import Recalibrate

if TYPE_CHECKING:
    import keras

    from finetune.batchnorm.measure import Measurement
    from finetune.batchnorm.sites import BNSite

TOGETHER: dict[type[UniformPolicy], tuple[str, ...]] = {
    Recalibrate: ("method", "samples", "prior", "memory"),
    Following: ("finish", "samples", "method", "freeze_last_epochs"),
}
"""Keys that rules of one kind share: what one site hands on is what the next is measured on, so they are measured
together or not exactly."""


def _agreeing(rules: tuple[UniformPolicy, ...]) -> tuple[UniformPolicy, ...]:
    differing = [found for kind, keys in TOGETHER.items() for found in _differing(rules, kind, keys)]
    if not differing:
        return rules
    place, key, first, expected, found = differing[0]
    likewise = "".join(
        f"; likewise batchnorm[{place}].{key}: expected {expected}, got {found}"
        for place, key, _, expected, found in differing[1:]
    )
    raise PydanticCustomError(
        "rules_differ",
        "several rules are measured together: expected {expected} as under batchnorm[{first}], "
        "got {found}{likewise}",
        {
            "at": (place, key),
            "expected": str(expected),
            "first": first,
            "found": str(found),
            "likewise": likewise,
        },
    )


def _differing(
    rules: Sequence[UniformPolicy], kind: type[UniformPolicy], keys: Sequence[str]
) -> list[tuple[int, str, int, Any, Any]]:
    """(place, key, place of the first rule of the kind, its value, the value found) wherever they differ."""
    places = [place for place, rule in enumerate(rules) if isinstance(rule, kind)]
    return [
        (place, key, places[0], expected, found)
        for place in places[1:]
        for key in keys
        if (found := getattr(rules[place], key)) != (expected := getattr(rules[places[0]], key))
    ]


RuleList = Annotated[tuple[OnePolicy, ...], Field(min_length=1), AfterValidator(_agreeing)]
"""As in a recipe: the first rule that matches a site decides."""


class Rules(Policy):
    """Each site under the first policy whose glob matches its path."""

    policy: Literal["rules"] = "rules"
    rules: RuleList

    def promises(self, sites: Sequence[BNSite]) -> dict[str, Promise]:
        return {path: p for rule, own in self._divided(sites) for path, p in rule.promises(own).items()}

    def problems(self, sites: Sequence[BNSite]) -> list[str]:
        paths = [site.path for site in sites if site.built]
        return [*self._unmatched(paths), *self._idle(paths)]

    def start(
        self, model: keras.Model, sites: Sequence[BNSite], calibration: Images, warn: Warn = unheard
    ) -> Measurement | None:
        rule, own = self._all_under(Recalibrate, sites)
        return rule.start(model, own, calibration, warn) if rule else None

    def prepare(self, sites: Sequence[BNSite], *, trained: Sequence[BNSite], steps_per_epoch: int) -> None:
        for rule, own in self._divided(sites):
            rule.prepare(own, trained=trained, steps_per_epoch=steps_per_epoch)

    @property
    def frozen_epochs(self) -> int:
        return max(rule.frozen_epochs for rule in self.rules)

    def prepare_frozen_epochs(self, sites: Sequence[BNSite], *, trained: Sequence[BNSite]) -> None:
        for rule, own in self._divided(sites):
            rule.prepare_frozen_epochs(own, trained=trained)

    def measure_anew(
        self, model: keras.Model, sites: Sequence[BNSite], calibration: Images, warn: Warn = unheard
    ) -> Measurement | None:
        rule, own = self._all_under(Following, sites)
        return rule.measure_anew(model, own, calibration, warn) if rule and own else None

    def finish_training(
        self,
        model: keras.Model,
        sites: Sequence[BNSite],
        calibration: Images,
        loss: Callable[[], float],
        warn: Warn = unheard,
    ) -> Finish:
        rule, own = self._all_under(Following, sites)
        return rule.finish_training(model, own, calibration, loss, warn) if rule else Finish()

    def _divided(self, sites: Iterable[BNSite]) -> list[tuple[UniformPolicy, list[BNSite]]]:
        """Every rule with the sites that it decides."""
        own: list[list[BNSite]] = [[] for _ in self.rules]
        for site in sites:
            place = self._place(site.path)
            if place is not None:
                own[place].append(site)
        return list(zip(self.rules, own, strict=True))

    def _place(self, path: str) -> int | None:
        return next((n for n, rule in enumerate(self.rules) if fnmatchcase(path, rule.sites)), None)

    def _all_under(self, kind: Any, sites: Sequence[BNSite]) -> tuple[UniformPolicy | None, list[BNSite]]:
        """The first rule of a kind, and in their order the sites of all rules of that kind, which measure alike."""
        first = next((rule for rule in self.rules if isinstance(rule, kind)), None)
        mine = {site.path for rule, own in self._divided(sites) if isinstance(rule, kind) for site in own}
        return first, [site for site in sites if site.path in mine]

    def _unmatched(self, paths: Sequence[str]) -> list[str]:
        left = [path for path in paths if self._place(path) is None]
        if not left:
            return []
        return [
            f"batchnorm: no rule matches {len(left)} of {len(paths)} BN sites: {some(left)}; "
            'add a last rule for them, as {sites: "*", policy: freeze}'
        ]

    def _idle(self, paths: Sequence[str]) -> list[str]:
        decided = {self._place(path) for path in paths}
        return [
            f"batchnorm[{place}].sites: {rule.sites!r} {_why_idle(rule.sites, paths)}"
            for place, rule in enumerate(self.rules)
            if place not in decided
        ]


def _why_idle(glob: str, paths: Sequence[str]) -> str:
    matched = [path for path in paths if fnmatchcase(path, glob)]
    if matched:
        return f"matches {some(matched)}, but rules before it match them all; put it before those"
    near = difflib.get_close_matches(glob.strip("*"), paths, n=3, cutoff=0.3) or paths[:3]
    return f"matches none of the {len(paths)} BN sites; near: {', '.join(near)}"
