"""A name out of a long list: accepted, or answered with the nearest ones."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from pydantic_core import PydanticCustomError


def known_name(name: str, names: Collection[str], source: str) -> str:
    """`name` itself. Raises PydanticCustomError, for use in a validator, where `names` do not hold it."""
    if name in names:
        return name
    by_lower_case = {known.lower(): known for known in names}
    close = difflib.get_close_matches(name.lower(), by_lower_case, n=3)
    raise PydanticCustomError(
        "unknown_name",
        "unknown {source} backbone {name}; {hint}",
        {
            "source": source,
            "name": repr(name),
            "hint": "did you mean " + " or ".join(repr(by_lower_case[match]) for match in close) + "?"
            if close
            else "`finetune list backbones` names them",
        },
    )
