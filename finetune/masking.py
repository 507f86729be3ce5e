"""Passwords in URIs are shown to nobody: not in messages, reports, params or logs."""

from __future__ import annotations

import re

# up to the last @ of the authority: a password may hold an @ itself
LOGIN = re.compile(r"(?<=://)(?:(?P<user>[^/\s:@]*):)?(?P<secret>[^/\s]+)(?=@)")


def masked(text: str) -> str:
    """A URI, or a text with URIs, with every password replaced by ***; a login without one is taken for a token."""
    return LOGIN.sub(lambda login: "***" if login["user"] is None else f"{login['user']}:***", text)


def without_secret(text: str, uri: str) -> str:
    """A text that may also hold the password of `uri` on its own."""
    login = LOGIN.search(uri)
    return masked(text.replace(login["secret"], "***") if login else text)
