"""A text file is there whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from finetune.whole_file import write_whole


def test_a_text_takes_the_place_of_what_was_there(tmp_path):
    for text in ("first", "zweiter, größer"):
        write_whole(tmp_path / "report.html", text)
        assert (tmp_path / "report.html").read_text(encoding="utf-8") == text
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_what_was_there_stays_while_the_new_text_is_written(tmp_path, monkeypatch):
    """Read at the last moment before the rename, by whoever reads it then."""
    path, seen = tmp_path / "comparison.json", []
    write_whole(path, "old")
    replace = Path.replace
    monkeypatch.setattr(
        Path,
        "replace",
        lambda part, to: (seen.append((path.read_text(), part.read_text())), replace(part, to)),
    )
    write_whole(path, "new")
    assert seen == [("old", "new")]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device without room")
def test_a_disk_without_room_leaves_what_was_there_and_no_half_of_the_new(tmp_path):
    path = tmp_path / "comparison.json"
    write_whole(path, "old")
    # whatever is written there meets a full disk
    (tmp_path / "comparison.json.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as error:
        write_whole(path, "new" * 10_000)
    assert error.value.errno == errno.ENOSPC
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["comparison.json"]
