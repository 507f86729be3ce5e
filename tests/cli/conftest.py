"""The command line as a person meets it: arguments in; exit code, stdout and stderr out."""

import sys
from typing import NamedTuple

import pytest

from finetune.cli import deployed, drifting, evaluating, main, running


class Answer(NamedTuple):
    """What a command came back with."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def nothing_heavy(monkeypatch):
    """Runs and evaluations are made up here: what real ones import takes 10 s."""
    for command in (running, evaluating, deployed, drifting):
        monkeypatch.setattr(command, "import_quietly", lambda **options: None)


@pytest.fixture
def finetune(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["finetune", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        return Answer(left.value.code or 0, *capsys.readouterr())

    return call
