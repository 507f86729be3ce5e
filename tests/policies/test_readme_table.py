"""The table in the README that scripts/policy_table.py measured says what the policies promise."""

from pathlib import Path

from finetune.policies import POLICIES

README = Path(__file__).resolve().parents[2] / "README.md"


def measured():
    """The cells of every row by policy, without the headings."""
    table = README.read_text().split("<!-- policy table -->")[1].split("<!-- end")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "|" in line
    ]
    return {cells[0].strip("`"): cells[1:] for cells in rows[2:]}


def test_the_measured_table_is_that_of_the_policies_as_they_are():
    everywhere = "moved at 53 of 53"
    promised = {
        policy().policy: [
            everywhere if policy().promise.statistics == "measured" else "fixed",
            everywhere if policy().promise.statistics == "follow" else "fixed",
            everywhere if policy().promise.affine == "train" else "fixed",
            "batch" if policy().promise.statistics == "follow" else "running",
            "running",
        ]
        for policy in POLICIES
    }
    assert measured() == promised
