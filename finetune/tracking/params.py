"""A nested recipe as MLflow params: one flat name and one short text a value."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from finetune.masking import masked

LONGEST_VALUE = 6000
"""Characters that MLflow takes for the value of one param."""


def flat_params(values: Mapping[str, Any]) -> dict[str, str]:
    """`{"stages": [{"epochs": 2}]}` as `{"stages.0.epochs": "2"}`.

    Lists of plain values stay in one param; texts are written bare, all else as in JSON. A value that
    is too long for MLflow ends in "...", and passwords in URIs are masked.
    """
    leaves = [leaf for key, value in values.items() for leaf in _leaves(str(key), value)]
    flat = {name: _text(value) for name, value in leaves}
    return {
        name: text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."
        for name, text in flat.items()
    }


def _leaves(name: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        inside = [(str(key), item) for key, item in value.items()]
    elif _is_list(value) and any(isinstance(item, Mapping) or _is_list(item) for item in value):
        inside = [(str(index), item) for index, item in enumerate(value)]
    else:
        return [(name, value)]
    return [leaf for key, item in inside for leaf in _leaves(f"{name}.{key}", item)]


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _text(value: Any) -> str:
    return masked(value if isinstance(value, str) else json.dumps(value, default=str))
