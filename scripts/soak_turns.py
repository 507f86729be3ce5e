"""What happens in a soak: commands, with a fault at most of them, each kind as often as it weighs.

Used by soak.py. A kind of turn takes the soak and gives the commands it ran, with the exit codes that are expected.
"""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from soak_faults import Child, dead_store, small_disk

KILLED = -signal.SIGKILL


class Soak:
    """The place, and how each command is called. add: takes a line of the record, as a mapping."""

    def __init__(self, place: Path, draw: random.Random, add: Callable[[dict[str, Any]], None]) -> None:
        self.place, self.draw, self.add = place, draw, add
        self.runs, self.served = place / "runs", place / "served"
        self.store = f"sqlite:///{place}/mlflow.db"
        self.recipe = str(place / "recipe.yaml")
        self.turn = 0
        self.ahead: list[Callable[[Soak], list[Child]]] = []

    def next_turn(self) -> Callable[[Soak], list[Child]]:
        """From a deck in which a kind of turn lies once, and then from decks in which it lies as often as it weighs."""
        if not self.ahead:
            weights = TURNS.values() if self.turn > 1 else [1] * len(TURNS)
            self.ahead = [kind for kind, weight in zip(TURNS, weights, strict=True) for _ in range(weight)]
            self.draw.shuffle(self.ahead)
        return self.ahead.pop()

    def run_words(self, store: str | None = None, runs: Path | None = None) -> list[str]:
        seed = ["--seed", str(self.turn), "--name", f"turn{self.turn}"]
        where = ["--runs-dir", str(runs or self.runs), "--tracking-uri", store or self.store]
        return ["run", self.recipe, *seed, *where]

    def child(self, words: list[str], **limits: Any) -> Child:
        return Child(words, self.place / "says" / f"{self.turn}", **limits)

    def folder(self, runs: Path | None = None) -> Path:
        return (runs or self.runs) / f"turn{self.turn}-1"

    def resumed(self) -> list[Child]:
        """The run of this turn, gone on with until it is finished; begun anew where it had no folder yet."""
        if not (self.folder() / "run.json").exists():
            shutil.rmtree(self.folder(), ignore_errors=True)
            return [self.child(self.run_words()).expect(0)]
        if json.loads((self.folder() / "run.json").read_text())["status"] == "finished":
            return []
        words = ["run", "--resume", str(self.folder()), "--tracking-uri", self.store]
        return [self.child(words).expect(0)]


def run_whole(soak: Soak) -> list[Child]:
    return [soak.child(soak.run_words()).expect(0)]


def run_killed(soak: Soak) -> list[Child]:
    return [killed(soak), *soak.resumed()]


def killed(soak: Soak) -> Child:
    """A run that was killed: mostly while it has something to lose."""
    first = soak.child(soak.run_words()).expect(0, KILLED)
    if soak.draw.random() < 0.8:
        first.wait_for(soak.folder() / "run.json")
    return first.struck(soak.draw.uniform(0, 25), signal.SIGKILL)


def run_interrupted(soak: Soak) -> list[Child]:
    """By what a batch queue sends, and by Ctrl-C, once there is something to lose."""
    number = soak.draw.choice([signal.SIGTERM, signal.SIGINT])
    first = soak.child(soak.run_words())
    first.wait_for(soak.folder() / "run.json")
    # Python, which ends by the signal itself where it comes after the last line, is 130 to a shell as well
    return [first.struck(soak.draw.uniform(0, 25), number).expect(0, 130, -number), *soak.resumed()]


def run_untracked(soak: Soak) -> list[Child]:
    """The store is away, does not answer or answers rubbish; what it missed is sent later."""
    with dead_store(soak.draw.choice(["refuses", "silent", "error 500"])) as uri:
        first = soak.child(
            soak.run_words(store=uri), environment={"MLFLOW_HTTP_REQUEST_TIMEOUT": "3"}
        ).expect(0)
        first.wait()
    again = ["sync", str(soak.folder()), "--tracking-uri", soak.store]
    return [first, *(soak.child(again).expect(0).waited() for _ in range(2))]


def run_without_room(soak: Soak) -> list[Child]:
    """A disk that is too small for what a run leaves; gone on with where there is room."""
    with small_disk(soak.place / "small", kilobytes=soak.draw.randint(50, 1500)) as runs:
        first = soak.child(soak.run_words(runs=runs)).expect(0, 2)
        first.wait()
        if soak.folder(runs).exists():
            shutil.copytree(soak.folder(runs), soak.folder())
    (soak.folder() / "run.lock").unlink(missing_ok=True)
    return [first, *soak.resumed()]


def run_starved(soak: Soak) -> list[Child]:
    """Too little memory: libraries may die of it in any way, but what was begun can be gone on with."""
    limit = {resource.RLIMIT_AS: soak.draw.randint(1_500, 5_000) << 20}
    return [soak.child(soak.run_words(), limits=limit).expect_any().waited(), *soak.resumed()]


def run_twice(soak: Soak) -> list[Child]:
    """Two that go on with one run: one of them works, or waits its turn and finds it finished."""
    first = killed(soak)
    if not (soak.folder() / "run.json").exists():
        return [first, *soak.resumed()]
    words = ["run", "--resume", str(soak.folder()), "--tracking-uri", soak.store]
    pair = [soak.child(words).expect(0, 2) for _ in range(2)]
    return [first, *(each.waited() for each in pair), *soak.resumed()]


def run_with_damaged_checkpoint(soak: Soak) -> list[Child]:
    first = killed(soak)
    files = sorted(path for path in soak.folder().glob("checkpoint*/**/*") if path.is_file())
    if files:
        victim = soak.draw.choice(files)
        content = bytearray(victim.read_bytes())
        content[soak.draw.randrange(len(content))] ^= 0xFF
        victim.write_bytes(content)
    return [first, *soak.resumed()]


def images(soak: Soak) -> list[str]:
    return [str(soak.served), "--images", str(soak.place / soak.draw.choice(["fog", "dark"]))]


FORCED = ["--force", "a soak is about what is published, not about how good it is"]


def recalibrate(soak: Soak) -> list[Child]:
    return [soak.child(["recalibrate", *images(soak), *FORCED]).expect(0)]


def recalibrate_killed(soak: Soak) -> list[Child]:
    words = ["recalibrate", *images(soak), *FORCED]
    first = soak.child(words).struck(soak.draw.uniform(1, 25), signal.SIGKILL).expect(0, KILLED)
    return [first.waited(), soak.child(words).expect(0)]


def recalibrate_twice(soak: Soak) -> list[Child]:
    pair = [soak.child(["recalibrate", *images(soak), *FORCED]).expect(0) for _ in range(2)]
    return [each.waited() for each in pair]


def recalibrate_on_rubbish(soak: Soak) -> list[Child]:
    """Files cut off, empty and of random bytes among the images: left out, and said so."""
    mixed = soak.place / "mixed"
    shutil.rmtree(mixed, ignore_errors=True)
    shutil.copytree(soak.place / "fog", mixed)
    for number, path in enumerate(sorted(mixed.rglob("*.png"))[::10]):
        whole = path.read_bytes()
        path.write_bytes([whole[: len(whole) // 2], b"", soak.draw.randbytes(500)][number % 3])
    return [soak.child(["recalibrate", str(soak.served), "--images", str(mixed), *FORCED]).expect(0)]


def recalibrate_without_room(soak: Soak) -> list[Child]:
    with small_disk(soak.place / "small", kilobytes=soak.draw.randint(50, 800)) as place:
        words = ["recalibrate", *images(soak), *FORCED, "--out", str(place / "served")]
        first = soak.child(words).expect(0, 2).waited()
        if list((place / "served").glob("[0-9]*")) and first.code != 0:
            first.finds("a version was published on a disk without room for it")
    return [first]


def rollback(soak: Soak) -> list[Child]:
    return [soak.child(["rollback", str(soak.served), "--reason", f"turn {soak.turn}"]).expect(0, 2)]


def drift(soak: Soak) -> list[Child]:
    return [soak.child(["drift", *images(soak), "--threshold", "0.3"]).expect(0, 3)]


def compare(soak: Soak, *struck: float) -> list[Child]:
    out = ["--out", str(soak.place / "comparisons" / str(soak.turn)), "--tracking-uri", soak.store]
    grid = ["--policies", "freeze,recalibrate", "--seeds", "2", "--learning-rates", "none", "--jobs", "1"]
    words = ["compare", soak.recipe, *grid, *out]
    broken = [soak.child(words).struck(after, signal.SIGKILL).expect(0, KILLED).waited() for after in struck]
    return [*broken, soak.child(words).expect(0)]


def compare_killed(soak: Soak) -> list[Child]:
    return compare(soak, soak.draw.uniform(5, 90))


TURNS: dict[Callable[[Soak], list[Child]], int] = {
    run_whole: 2,
    run_killed: 4,
    run_interrupted: 3,
    run_untracked: 3,
    run_without_room: 2,
    run_starved: 2,
    run_twice: 2,
    run_with_damaged_checkpoint: 2,
    recalibrate: 2,
    recalibrate_killed: 3,
    recalibrate_twice: 1,
    recalibrate_on_rubbish: 1,
    recalibrate_without_room: 2,
    rollback: 2,
    drift: 1,
    compare: 1,
    compare_killed: 2,
}
