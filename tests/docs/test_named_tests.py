"""Every test that a page names is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page):
    for name in re.findall(r"`(tests/[^`\s]*)`", page.read_text()):
        file, _, test = name.partition("::")
        assert (ROOT / file).exists(), f"{page.name} names {file}"
        assert not test or f"def {test}(" in (ROOT / file).read_text(), f"{page.name} names {name}"


def test_the_pages_name_some():
    named = [name for page in PAGES for name in re.findall(r"`tests/[^`\s]*::\w+`", page.read_text())]
    assert len(named) > 15
