"""Passwords in URIs are shown to nobody."""

from __future__ import annotations

import pytest

from finetune.masking import masked, without_secret


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://ada:geheim@host:5000/x", "http://ada:***@host:5000/x"),
        ("postgresql://ada:p@ss@host/runs", "postgresql://ada:***@host/runs"),
        ("https://a_token@host", "https://***@host"),
        ("from http://a:b@c to http://d:e@f", "from http://a:***@c to http://d:***@f"),
    ],
)
def test_a_password_or_token_becomes_three_stars(text: str, shown: str) -> None:
    assert masked(text) == shown


@pytest.mark.parametrize(
    "text", ["sqlite:///mlflow.db", "http://host:5000/a@b", "ada@host.org", "no URI at all"]
)
def test_a_text_without_a_password_stays_as_it_is(text: str) -> None:
    assert masked(text) == text


def test_a_password_is_masked_where_a_message_repeats_it_alone() -> None:
    text = without_secret("login with 'geheim' failed at http://ada:geheim@host", "http://ada:geheim@host")
    assert text == "login with '***' failed at http://ada:***@host"
