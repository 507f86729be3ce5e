"""What stands beside each other in a comparison: each policy with each value of its own keys, under each setting."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from finetune.errors import InputError
from finetune.policies import POLICIES

OWN = "batchnorm."
"""What --set says of the policies themselves; every other key is a setting, the same for all of them."""

Varied = tuple[tuple[str, ...], ...]
"""What takes several values: one override a value, ("data.batch_size=8", "data.batch_size=32")."""


@dataclass(frozen=True, order=True)
class Arm:
    """One line of the table. setting: what --set says of all policies, "data.batch_size=8"; empty where nothing
    varies. keys: what it says of this one, "batchnorm.momentum=0.9"."""

    setting: str
    policy: str
    keys: str = ""

    @property
    def name(self) -> str:
        """Tells it from the others of its setting: `retrain momentum=0.9`."""
        return " ".join([self.policy, *(key.removeprefix(OWN) for key in self.keys.split())])

    @property
    def overrides(self) -> list[str]:
        return [*self.setting.split(), *self.keys.split()]


def arms_of(policies: Sequence[str], varied: Varied) -> list[Arm]:
    """Setting by setting. Raises InputError for keys of policies that none of them has."""
    own = [some for some in varied if some[0].startswith(OWN)]
    unknown = [key for key in map(_key, own) if not any(key in _keys_of(policy) for policy in policies)]
    if unknown:
        raise InputError(
            [
                f"--set {OWN}{key}: none of {', '.join(policies)} has such a key; finetune list policies shows them"
                for key in unknown
            ]
        )
    settings = itertools.product(*(some for some in varied if some not in own))
    return [
        Arm(" ".join(setting), policy, " ".join(keys))
        for setting in settings
        for policy in policies
        for keys in itertools.product(*(some for some in own if _key(some) in _keys_of(policy)))
    ]


def _key(overrides: Sequence[str]) -> str:
    """`finish` of `batchnorm.finish.method=one_pass`."""
    return overrides[0].partition("=")[0].removeprefix(OWN).partition(".")[0]


def _keys_of(policy: str) -> set[str]:
    """None of one that nobody knows: loading the recipe says so."""
    return {
        key for kind in POLICIES if kind.model_fields["policy"].default == policy for key in kind.model_fields
    }


def alternatives(texts: Sequence[str]) -> tuple[Varied, tuple[str, ...]]:
    """`--set key=a,b` as what varies, ("key=a", "key=b"), and all else as what is fixed.

    A key of policies varies even with one value: not every policy has it. Raises InputError where a value is
    missing, has a blank in it, or is there twice.
    """
    varied, fixed, problems = [], [], []
    for text in texts:
        key, _, values = text.partition("=")
        some = list(_values(values))
        if len(some) == 1 and not key.startswith(OWN):
            fixed.append(text)
        elif any(not value or " " in value for value in some) or len(set(some)) < len(some):
            problems.append(
                f"--set {text}: expected different values between commas, without blanks, as in {key}=8,32"
            )
        else:
            varied.append(tuple(f"{key}={value}" for value in some))
    if problems:
        raise InputError(problems)
    return tuple(varied), tuple(fixed)


def _values(text: str) -> Iterator[str]:
    """Between commas, of which those in brackets belong to a value."""
    depth, start = 0, 0
    for place, character in enumerate(text):
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            yield text[start:place]
            start = place + 1
    yield text[start:]
