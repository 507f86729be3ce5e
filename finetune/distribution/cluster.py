"""Which processes train together, and which of them this one is: the environment variable TF_CONFIG."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune.errors import InputError

VARIABLE = "TF_CONFIG"
EXAMPLE = '{"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task": {"type": "worker", "index": 0}}'
ADDRESS = re.compile(r"[^\s:/]+:\d{1,5}|\[[0-9A-Fa-f:.]+\]:\d{1,5}")


@dataclass(frozen=True)
class Cluster:
    """Addresses of all workers, the chief first, and the place of this process among them, from 0."""

    workers: tuple[str, ...]
    index: int

    @property
    def chief(self) -> bool:
        """It alone writes."""
        return self.index == 0

    def __str__(self) -> str:
        return f"worker {self.index + 1} of {len(self.workers)}"


def cluster_of(environment: Mapping[str, str]) -> Cluster:
    """What TF_CONFIG says. Raises InputError with all that is wrong with it."""
    text = environment.get(VARIABLE, "").strip()
    if not text:
        raise InputError(
            f"distribute.strategy: multi_worker needs {VARIABLE} in the environment of every process, as {EXAMPLE}; "
            "set it, or take strategy: mirrored for the devices of one machine"
        )
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{VARIABLE}: expected JSON, as {EXAMPLE}: {error}") from error
    cluster, task = (said.get(key) if isinstance(said, dict) else None for key in ("cluster", "task"))
    if not isinstance(cluster, dict) or not isinstance(task, dict):
        raise InputError(f"{VARIABLE}: expected cluster and task, as {EXAMPLE}, got {text[:200]}")
    problems = [*_cluster_problems(cluster), *_task_problems(cluster, task)]
    if problems:
        raise InputError([f"{VARIABLE}: {problem}" for problem in problems])
    chiefs = tuple(cluster.get("chief", ()))
    return Cluster((*chiefs, *cluster["worker"]), task["index"] + (len(chiefs) * (task["type"] == "worker")))


def _cluster_problems(cluster: Mapping[str, Any]) -> list[str]:
    problems = [
        f"cluster.{kind}: only chief and worker train together; leave it out"
        for kind in cluster
        if kind not in ("chief", "worker")
    ]
    for kind, most in (("chief", 1), ("worker", None)):
        found = cluster.get(kind, [] if kind == "chief" else None)
        if not isinstance(found, list) or (kind == "worker" and not found):
            problems.append(f"cluster.{kind}: expected a list of addresses as host1:12345, got {found!r}")
            continue
        if most is not None and len(found) > most:
            problems.append(f"cluster.{kind}: expected one address, got {len(found)}")
        problems += [
            f"cluster.{kind}: expected addresses as host1:12345, got {address!r}"
            for address in found
            if not isinstance(address, str) or not ADDRESS.fullmatch(address)
        ]
        named = [address for address in found if isinstance(address, str)]
        twice = sorted({address for address in named if named.count(address) > 1})
        problems += [f"cluster.{kind}: {address} is there twice" for address in twice]
    return problems


def _task_problems(cluster: Mapping[str, Any], task: Mapping[str, Any]) -> list[str]:
    kind, index = task.get("type"), task.get("index")
    if kind not in ("chief", "worker"):
        return [f"task.type: expected worker or chief, got {kind!r}"]
    listed = cluster.get(kind)
    count = len(listed) if isinstance(listed, list) else 0
    if isinstance(index, bool) or not isinstance(index, int):
        return [f"task.index: expected a whole number, got {index!r}"]
    if not 0 <= index < count:
        return [f"task.index: {index}, but cluster.{kind} lists {count}: expected 0 to {count - 1}"]
    return []
