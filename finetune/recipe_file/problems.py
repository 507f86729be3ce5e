"""What is wrong with a recipe, and at which place: file and line, or the `--set` that said it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Keys = tuple[str | int, ...]
"""The way to a value from the top of a recipe: ("stages", 0, "epochs")."""


@dataclass(frozen=True)
class Override:
    """A `--set` as it was typed; `position` among the overrides, from 0; `keys` of the value that it put."""

    text: str
    position: int
    keys: Keys = ()


Place = int | Override
"""A line of the file, from 1, or an override."""


@dataclass(frozen=True)
class Problem:
    """`text` says what was found and what was expected. `place` only where the keys do not lead to it."""

    keys: Keys
    text: str
    place: Place | None = None


def dotted(keys: Keys) -> str:
    """`stages[0].epochs`, as messages write it."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")


def in_order(problems: Iterable[Problem], source: str, places: Mapping[Keys, Place]) -> list[str]:
    """One line a problem, sorted by line; those of overrides come last, in their order.

    A value without a place of its own stands where the nearest value around it does.
    """
    placed = [(_place(problem, places), problem) for problem in problems]
    placed.sort(key=lambda pair: (isinstance(pair[0], Override), _rank(pair[0])))
    lines = [_printable(_line(source, place, problem)) for place, problem in placed]
    return list(dict.fromkeys(lines))


def _place(problem: Problem, places: Mapping[Keys, Place]) -> Place:
    if problem.place is not None:
        return problem.place
    keys = problem.keys
    while keys and keys not in places:
        keys = keys[:-1]
    return places.get(keys, 1)


def _rank(place: Place) -> int:
    return place.position if isinstance(place, Override) else place


def _line(source: str, place: Place, problem: Problem) -> str:
    if not isinstance(place, Override):
        return f"{source}:{place} {dotted(problem.keys)}".rstrip() + f": {problem.text}"
    if problem.keys == place.keys:
        return f"{place.text}: {problem.text}"
    return f"{place.text} {dotted(problem.keys)}: {problem.text}"


def _printable(line: str) -> str:
    # a key may hold line breaks, and codes that a terminal obeys
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line)
