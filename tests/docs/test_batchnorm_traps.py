"""docs/batchnorm-traps.md runs: every block in order, a section at a time, prints what stands below it."""

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.cli import app
from finetune.recipe_file import load_text
from tests.recipe_file import GOOD

PAGE = Path(__file__).parents[2] / "docs" / "batchnorm-traps.md"
TOLERANCE = 0.05
FENCED = re.compile(r"^```(python process|python|text|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DECIMAL = re.compile(r"\d+\.\d+")


def blocks(section):
    """(kind, text) of the fenced blocks, in order."""
    return FENCED.findall(section)


PREAMBLE, *SECTIONS = re.split(r"^(?=## )", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)


def title(section):
    return section.splitlines()[0].removeprefix("## ")


def same(printed, written):
    """Words and whole numbers exactly, numbers with a decimal point to within the tolerance."""
    assert DECIMAL.sub("#", printed) == DECIMAL.sub("#", written), printed
    values = [list(map(float, DECIMAL.findall(text))) for text in (printed, written)]
    assert values[0] == pytest.approx(values[1], abs=TOLERANCE), printed


def in_a_process(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(section, names):
    """Execute the Python blocks of a section among these names; each is compared with the text that follows it."""
    pending = []
    for kind, text in blocks(section):
        if kind == "python":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(text, f"{PAGE.name}: {title(section)}", "exec"), names)
            pending.append(out.getvalue())
        elif kind == "python process":
            pending.append(in_a_process(text))
        elif kind == "text":
            same(pending.pop(), text)
    assert pending == [], "a block has no output on the page"


@pytest.fixture(scope="module")
def names():
    shared = {}
    run(PREAMBLE, shared)
    return shared


@pytest.mark.parametrize("section", SECTIONS, ids=title)
def test_the_blocks_of_a_section_print_what_stands_below_them(section, names):
    assert [kind for kind, _ in blocks(section) if kind.startswith("python")]
    run(section, dict(names))


def test_the_page_has_the_eight_traps():
    assert [title(section).split(".")[0] for section in SECTIONS] == list("12345678")


@pytest.mark.parametrize("section", SECTIONS, ids=title)
def test_recipe_lines_of_a_section_can_be_read(section):
    good = dict(re.findall(r"^(\w+):\n((?:[ ].*\n)+)", GOOD, re.MULTILINE))
    for kind, text in blocks(section):
        if kind == "yaml":
            key = text.split(":")[0]
            assert key in good
            load_text("".join(text if name == key else f"{name}:\n{body}" for name, body in good.items()))


def test_every_command_on_the_page_exists():
    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    named = set(re.findall(r"`finetune (\w+)", PAGE.read_text(encoding="utf-8")))
    assert named <= known
    assert len(named) >= 7


@pytest.mark.parametrize(
    ("printed", "written"), [("a 1.06\n", "a 1.00\n"), ("True\n", "False\n"), ("3 sites\n", "2 sites\n")]
)
def test_what_differs_is_seen(printed, written):
    with pytest.raises(AssertionError):
        same(printed, written)
