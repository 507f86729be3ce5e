"""The report is one safe, complete file."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from finetune.errors import OutputError
from finetune.report import write_report
from finetune.report.confusion import Confused, confusion_matrix, most_confused
from finetune.report.definitions import METRICS
from finetune.result import Check, RunResult
from tests.sample_result import CHECKS, sample_result

EVIL = "<script>alert(1)</script>"


def report(result: RunResult, folder: Path) -> str:
    write_report(result, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Collects what a browser would fetch, the scripts, and the class and text of every table row."""

    def __init__(self) -> None:
        super().__init__()
        self.in_row = False
        self.fetched: list[str] = []
        self.scripts = 0
        self.rows: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.scripts += tag == "script"
        self.fetched += [values[name] or "" for name in ("src", "href", "xlink:href") if name in values]
        if tag == "tr":
            self.in_row = True
            self.rows.append((values.get("class") or "", ""))

    def handle_endtag(self, tag: str) -> None:
        self.in_row = self.in_row and tag != "tr"

    def handle_data(self, data: str) -> None:
        if self.in_row:
            self.rows[-1] = (self.rows[-1][0], f"{self.rows[-1][1]} {data.strip()}".strip())


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def test_nothing_is_fetched_from_anywhere(tmp_path: Path) -> None:
    page = report(sample_result(tmp_path, "retrain", shift=1.6), tmp_path)
    fetched = read(page).fetched
    assert fetched, "the figures refer to their own parts"
    assert all(place.startswith(("#", "data:image/png;base64,")) for place in fetched)
    assert not re.findall(r"@import|url\((?!#)", page)
    assert page.count("<!") == 1, "a drawing brings no document type of its own, with its address"


def test_names_from_outside_are_shown_as_text(tmp_path: Path) -> None:
    evil = sample_result(tmp_path, class_names=(EVIL, "$x$ & 猫"), checks=(Check(EVIL, False, EVIL),))
    page = report(
        replace(evil, name=EVIL, notes=(EVIL,), dataset={EVIL: EVIL}, recipe={EVIL: EVIL}), tmp_path
    )
    assert read(page).scripts == 1, "only the report's own, which sorts the table"
    assert EVIL not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 5
    assert "$x$ &amp; 猫" in page


def test_every_check_and_every_metric_is_there(tmp_path: Path) -> None:
    result = sample_result(tmp_path)
    rows = [text for _, text in read(report(result, tmp_path)).rows]
    for check in result.checks:
        assert f"✓ yes {check.name} {check.detail}" in rows
    assert set(result.test.metrics) == set(METRICS)
    for name, value in result.test.metrics.items():
        assert f"{name.replace('_', ' ')} {value:.4g} {METRICS[name]}" in rows


def test_a_verified_run_says_so_and_how_to_load_the_model(tmp_path: Path) -> None:
    page = report(sample_result(tmp_path), tmp_path)
    assert "verified: all 5 checks held" in page
    assert "NOT" not in page
    assert 'keras.saving.load_model("model.keras")' in page


def test_a_failed_check_is_marked_and_no_model_is_offered(tmp_path: Path) -> None:
    failed = Check("running statistics are fixed", False, "53 of 53 sites moved")
    page = report(sample_result(tmp_path, checks=(*CHECKS[:1], failed, *CHECKS[2:])), tmp_path)
    assert "NOT verified: 1 of 5 checks failed" in page
    marked = [text for kind, text in read(page).rows if kind == "failed"]
    assert marked == ["✗ NO running statistics are fixed 53 of 53 sites moved"]
    assert "load_model" not in page


def test_every_site_is_in_the_table(tmp_path: Path) -> None:
    result = sample_result(tmp_path, "retrain", shift=1.0, sites=121)
    rows = [text for _, text in read(report(result, tmp_path)).rows]
    for site in result.sites:
        assert any(text.startswith(f"{site.index} {site.path} {site.channels} ") for text in rows)


def test_statistics_that_did_not_move_are_said_not_drawn(tmp_path: Path) -> None:
    page = report(sample_result(tmp_path, "freeze", shift=0.0), tmp_path)
    assert "all 53 sites still have their pretrained running statistics" in page
    assert "shift of the running statistics by site" not in page


def test_passwords_in_the_recipe_are_masked(tmp_path: Path) -> None:
    result = sample_result(tmp_path)
    recipe = {**result.recipe, "tracking": {"uri": "http://ada:geheim@host"}}
    page = report(replace(result, recipe=recipe, provenance={"recipe": recipe}), tmp_path)
    assert "geheim" not in page
    assert page.count("http://ada:***@host") == 2


def test_equal_results_give_equal_reports(tmp_path: Path) -> None:
    result = sample_result(tmp_path, "retrain", shift=1.0)
    assert report(result, tmp_path) == report(result, tmp_path)


def test_a_model_without_sites_and_a_run_without_epochs_have_a_report(tmp_path: Path) -> None:
    page = report(replace(sample_result(tmp_path), sites=(), epochs=()), tmp_path)
    assert "Learning curves" not in page
    assert "How far did" not in page


def test_nothing_half_written_is_left_behind(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    target.mkdir()
    with pytest.raises(OutputError, match=r"report\.html: the report could not be written"):
        write_report(sample_result(tmp_path), target)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_most_frequent_mistakes_come_first() -> None:
    confusion = ((8, 2, 0), (0, 5, 5), (0, 0, 0))
    assert most_confused(confusion, ("a", "b", "c")) == [
        Confused("b", "c", 5, 0.5),
        Confused("a", "b", 2, 0.2),
    ]


@pytest.mark.parametrize(
    ("classes", "named", "counted"), [(10, True, True), (100, True, False), (300, False, False)]
)
def test_the_confusion_matrix_says_what_has_room(classes: int, named: bool, counted: bool) -> None:
    names = [f"class {number}" for number in range(classes)]
    confusion = [[5 if row == column else 0 for column in range(classes)] for row in range(classes)]
    axes = confusion_matrix(confusion, names).axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert (labels == names) is named
    assert len(axes.texts) == (classes if counted else 0)
