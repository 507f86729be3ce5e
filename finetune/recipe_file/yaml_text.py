"""YAML 1.2 core schema, read as plain values with the line of every key, and written so that it reads the same.

PyYAML resolves YAML 1.1, where `1e-3` is text, `no` is false and `1:30` is 90. A recipe means what a
person expects: https://yaml.org/spec/1.2.2/#103-core-schema.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from finetune.recipe_file.problems import Keys, Place, Problem

DEEPEST = 20
MOST_VALUES = 10_000
"""Bounds on what a recipe may hold: aliases of aliases grow without end."""

_NULL, _BOOL, _INT, _FLOAT = (f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float"))
# more digits than fit 64 bits are read as a float, whose limits are known
_PLAIN_SCALARS = (
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_BOOL, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (_INT, r"[-+]?[0-9]{1,18}", list("-+0123456789")),
    (
        _FLOAT,
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 - PyYAML's own name and type


class _Dumper(yaml.SafeDumper):
    # lists and keys of equal value are written out: anchors are hard to read
    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _quoted_where_it_breaks(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML puts these line breaks into single quotes, where they are read as spaces or newlines
    style = '"' if re.search("[\x85\u2028\u2029]", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _quoted_where_it_breaks)
for _tag, _pattern, _first in _PLAIN_SCALARS:
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), _first)
    _Dumper.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), _first)


@dataclass
class Document:
    """Plain values, the place of every one of them, and what is wrong but can be read past."""

    values: Any
    places: dict[Keys, Place]
    problems: list[Problem] = field(default_factory=list)


class NotReadable(Exception):
    """Text that is no YAML, or YAML that a recipe has no use for."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems


def read(text: str) -> Document:
    """The one document in `text`; its values are None where it is empty. Raises NotReadable."""
    try:
        text.encode()
        _refuse_tags_and_depth(text)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise NotReadable([_not_yaml(error, text)]) from error
    except (yaml.YAMLError, UnicodeEncodeError) as error:
        unprintable = "not YAML: it holds characters that YAML does not allow"
        raise NotReadable([Problem((), unprintable, place=1)]) from error
    builder = _Builder()
    values = None if node is None else builder.value(node, ())
    return Document(values, builder.places, builder.problems)


def write(values: Any) -> str:
    """YAML in the order of `values`."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _refuse_tags_and_depth(text: str) -> None:
    # before composing, which recurses and would take deep nesting to the end of the stack
    depth, tagged = 0, []
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        line = _line_of(event)
        if depth > DEEPEST:
            raise NotReadable([_too_deep(line)])
        if tag := getattr(event, "tag", None):
            tagged.append(Problem((), f"YAML tag {tag!r} is not read; write the plain value", place=line))
    if tagged:
        raise NotReadable(tagged)


def _line_of(part: yaml.Event | yaml.Node) -> int:
    # PyYAML counts from 0
    return part.start_mark.line + 1 if part.start_mark else 1


def _too_deep(line: int) -> Problem:
    return Problem((), f"nested deeper than {DEEPEST} levels", place=line)


def _not_yaml(error: yaml.MarkedYAMLError, text: str) -> Problem:
    line = error.problem_mark.line if error.problem_mark else 0
    if "maximum nesting depth" in (error.problem or ""):
        # LibYAML as of PyYAML 6.0.4 has a bound of its own and, reading ahead, may meet it before ours
        return _too_deep(line + 1)
    said = " ".join(part for part in (error.context, error.problem) if part)
    lines = text.splitlines()
    found = lines[line] if line < len(lines) else ""
    hint = "; indent with spaces, not tabs" if "\t" in found[: len(found) - len(found.lstrip())] else ""
    return Problem((), f"not YAML: {said}{hint}", place=line + 1)


class _Builder:
    """Turns nodes into values and notes where they stand."""

    def __init__(self) -> None:
        self.places: dict[Keys, Place] = {}
        self.problems: list[Problem] = []
        self._count = 0

    def value(self, node: yaml.Node, keys: Keys) -> Any:
        self._count += 1
        line = _line_of(node)
        if self._count > MOST_VALUES or len(keys) > DEEPEST:
            size = f"more than {MOST_VALUES} values or {DEEPEST} levels, with aliases written out"
            raise NotReadable([Problem((), size, place=line)])
        # a value stands where its key does
        self.places.setdefault(keys, line)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, keys)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*keys, index)) for index, item in enumerate(node.value)]
        return _scalar(node)

    def _mapping(self, node: yaml.MappingNode, keys: Keys) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = _line_of(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(keys, "a key must be text, not a list or a section", place=line))
                continue
            here = (*keys, key_node.value)
            if key_node.value in values:
                self.problems.append(
                    Problem(here, f"given twice, first on line {self.places[here]}", place=line)
                )
                continue
            self.places[here] = line
            values[key_node.value] = self.value(value_node, here)
        return values


def _scalar(node: yaml.Node) -> Any:
    text: str = node.value
    if node.tag == _NULL:
        return None
    if node.tag == _BOOL:
        return text.lower() == "true"
    if node.tag == _INT:
        return int(text)
    if node.tag == _FLOAT:
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text
