"""Sizes as a person writes them."""

from __future__ import annotations

from pydantic import ByteSize, TypeAdapter, ValidationError

from finetune.errors import InputError


def bytes_in(text: str) -> int:
    """`2GB`, `500MiB` or a plain number. Raises InputError for anything else."""
    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError as error:
        raise InputError(f"--memory: expected a size, as in 2GB, got {text!r}") from error


def in_words(count: int) -> str:
    """`6.0MB`."""
    return ByteSize(count).human_readable(decimal=True)
