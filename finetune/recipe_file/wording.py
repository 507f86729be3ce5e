"""What pydantic found wrong with a recipe, in words for the person who wrote it."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "string_type": "text",
    "string_too_short": "text of {min_length} or more characters",
    "string_too_long": "text of at most {max_length} characters",
    "path_type": "a path",
    "bool_type": "true or false",
    "literal_error": "{expected}",
    "union_tag_invalid": "{expected_tags}",
    "list_type": "a list",
    "tuple_type": "a list",
    "too_short": "a list of {min_length} or more",
    "too_long": "a list of at most {max_length}",
    "dict_type": "a section of keys and values",
    "byte_size": "a size, as in 2GB",
    "byte_size_unit": "a size, as in 2GB",
    "model_type": "a section of keys and values",
    "model_attributes_type": "a section of keys and values",
}
"""By pydantic's error type (https://docs.pydantic.dev/latest/errors/validation_errors/)."""

Detail = Mapping[str, Any]
"""One entry of `ValidationError.errors()`."""


def wording(details: Sequence[Detail], choices: Sequence[str]) -> str:
    """What was found and what was expected, for the errors at one place.

    Where a value may be one of several things pydantic reports each of them. `choices` are the keys
    that may stand there, or the names that a missing key may hold.
    """
    expected = list(dict.fromkeys(filter(None, map(_expected, details))))
    if not expected:
        return _sentence(details[0], choices)
    found = _found(details[0])
    allowed = re.findall("'([^']*)'", " ".join(expected))
    hint = _did_you_mean(found, allowed) if isinstance(found, str) else ""
    if expected == ["text"] and isinstance(found, bool | int | float):
        hint = "; put it in quotes to make it text"
    return f"expected {' or '.join(expected)}, got {_shown(found)}{hint}"


def _expected(detail: Detail) -> str | None:
    phrase = _EXPECTED.get(detail["type"])
    if phrase is None:
        return None
    # pydantic joins tags with commas and the values of a literal with "or"
    return re.sub(r"', '(?=[^']*'$)", "' or '", phrase.format(**detail.get("ctx", {})))


def _found(detail: Detail) -> Any:
    return detail["ctx"]["tag"] if detail["type"] == "union_tag_invalid" else detail["input"]


def _sentence(detail: Detail, choices: Sequence[str]) -> str:
    kind = detail["type"]
    if kind == "extra_forbidden":
        key = str(detail["loc"][-1])
        return f"unknown key {key!r}" + (_did_you_mean(key, choices) or f"; expected {_any_of(choices)}")
    if kind == "missing":
        return "missing; this key is required"
    if kind == "union_tag_not_found":
        return f"missing; expected {_any_of([repr(choice) for choice in choices])}"
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    # errors with words of our own, and those of pydantic that no recipe key can meet today
    return str(detail["msg"])


def _did_you_mean(found: str, choices: Sequence[str]) -> str:
    close = difflib.get_close_matches(found, choices, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _any_of(choices: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(choices[:-1]), *choices[-1:])))


def _shown(found: Any) -> str:
    if found is None:
        return "nothing"
    if isinstance(found, bool):
        return str(found).lower()
    if isinstance(found, dict):
        return "a section"
    if isinstance(found, list):
        return f"a list of {len(found)}" if found else "an empty list"
    short = reprlib.Repr()
    short.maxstring = 60
    return short.repr(found)
