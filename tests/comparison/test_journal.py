"""What is finished stays finished: a line cut off in the middle is trained again, and two cannot write at once."""

import json

import pytest

from finetune.comparison.journal import NAME, Journal
from finetune.errors import OutputError


def filled(folder, outcome, count=3):
    with Journal(folder) as journal:
        for number in range(count):
            journal.add(
                f"key {number}", f"cell {number}", outcome(accuracy=number / 10, seconds=float(number))
            )
    return folder / NAME


def test_what_was_added_is_known_again(tmp_path, outcome):
    filled(tmp_path / "new" / "folder", outcome)
    with Journal(tmp_path / "new" / "folder") as journal:
        assert journal.known == {f"key {n}": outcome(accuracy=n / 10, seconds=float(n)) for n in range(3)}


def test_an_outcome_without_numbers_comes_back_without_them(tmp_path, outcome):
    from finetune.comparison.outcome import Outcome

    with Journal(tmp_path) as journal:
        journal.add("key", "cell", Outcome(failed="diverged"))
    with Journal(tmp_path) as journal:
        assert journal.known == {"key": Outcome(failed="diverged")}


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_line_that_was_cut_off_is_dropped_and_the_next_one_is_whole(tmp_path, outcome, cut):
    file = filled(tmp_path, outcome)
    file.write_bytes(file.read_bytes()[:-cut])
    with Journal(tmp_path) as journal:
        assert list(journal.known) == ["key 0", "key 1"]
        journal.add("key 9", "cell 9", outcome())
    assert [json.loads(line)["key"] for line in file.read_text().splitlines()] == ["key 0", "key 1", "key 9"]


def test_every_line_is_on_the_disk_as_soon_as_it_is_added(tmp_path, outcome):
    with Journal(tmp_path) as journal:
        journal.add("key", "cell", outcome())
        assert json.loads((tmp_path / NAME).read_text())["key"] == "key"


def test_a_folder_that_another_comparison_holds_is_refused(tmp_path, outcome):
    with Journal(tmp_path), pytest.raises(OutputError, match="another comparison is at work there"):
        Journal(tmp_path).__enter__()
    filled(tmp_path, outcome)


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match=r"taken.cells\.jsonl: cannot be written"):
        Journal(tmp_path / "taken").__enter__()
