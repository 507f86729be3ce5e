"""Before anything is trained: whether all workers are about to do the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from numpy.typing import NDArray

from finetune.distribution.replicas import Replicas
from finetune.errors import InputError


def fingerprint(values: Iterable[NDArray[Any]]) -> str:
    """A hash of them."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(value.tobytes())
    return digest.hexdigest()


def refuse_unlike(replicas: Replicas, settled: Mapping[str, str]) -> None:
    """settled: by what a person would call it, what has to be the same in all workers. Raises InputError in each of
    them, with all that is not."""
    if replicas.workers == 1:
        return
    first, *others = (json.loads(said) for said in replicas.told(json.dumps(dict(settled))))
    problems = [
        f"worker {number} of {replicas.workers}: other {', '.join(unlike)} than the first worker; start all workers "
        "with the same recipe, data and weights, or with the same --resume, on one file system"
        for number, said in enumerate(others, 2)
        if (unlike := [name for name in first if said.get(name) != first[name]])
    ]
    if problems:
        raise InputError(problems)
