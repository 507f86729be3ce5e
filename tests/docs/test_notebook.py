"""docs/batchnorm.ipynb runs in a kernel, and prints what it holds: words exactly, numbers to within a tolerance."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

PAGE = Path(__file__).parents[2] / "docs" / "batchnorm.ipynb"
DECIMAL = re.compile(r"\d+\.\d+|\d+e-\d+")
TOLERANCE = 0.1
"""Of accuracies and shifts: another machine has other rounding, and one seed on 320 pictures follows it."""


def printed(notebook):
    """What each cell wrote to standard output."""
    return [
        "".join(part["text"] for part in cell.outputs if part.get("name") == "stdout")
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_the_notebook_prints_what_it_holds(tmp_path):
    kept = nbformat.read(PAGE, as_version=4)
    fresh = nbformat.read(PAGE, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(fresh, timeout=600, kernel_name="python3", resources=resources).execute()
    for now, then in zip(printed(fresh), printed(kept), strict=True):
        assert DECIMAL.sub("#", now) == DECIMAL.sub("#", then)
        values = [[float(number) for number in DECIMAL.findall(text)] for text in (now, then)]
        assert values[0] == pytest.approx(values[1], abs=TOLERANCE)


def test_the_notebook_tells_nothing_of_the_machine_that_ran_it():
    text = PAGE.read_text(encoding="utf-8")
    assert "/tmp/" not in text
    assert "/home/" not in text
    assert '"stderr"' not in text
