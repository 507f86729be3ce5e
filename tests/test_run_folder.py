"""The run folder: names never collide, errors say what to do."""

import errno
import json

import pytest

from finetune.errors import OutputError
from finetune.run_folder import append_metrics, clear_output_errors, new_run_folder


def test_each_run_gets_the_next_free_number(tmp_path):
    first, second = new_run_folder(tmp_path, "net"), new_run_folder(tmp_path, "net")
    assert (first.name, second.name) == ("net-1", "net-2")


def test_an_existing_folder_is_never_written_into(tmp_path):
    (tmp_path / "net-1").mkdir()
    (tmp_path / "net-1" / "precious").touch()
    assert new_run_folder(tmp_path, "net").name == "net-2"
    assert [f.name for f in (tmp_path / "net-1").iterdir()] == ["precious"]


def test_a_file_where_the_runs_should_go(tmp_path):
    place = tmp_path / "runs"
    place.touch()
    with pytest.raises(OutputError) as error:
        new_run_folder(place, "net")
    assert str(error.value) == (
        f"{place}: expected a folder for runs, found a file; choose another with --runs-dir"
    )


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "no space left on the device"),
        (errno.EFBIG, "a file larger than the file system, or the limit of this user, allows"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "permission denied"),
    ],
)
def test_a_place_that_cannot_be_written_is_said_in_one_line(tmp_path, number, reason):
    with pytest.raises(OutputError) as error, clear_output_errors(tmp_path):
        raise OSError(number, "whatever the system says", "model.keras")
    assert str(error.value) == (
        f"model.keras: {reason}; make room or choose another place with --runs-dir "
        f"(what was written so far stays in {tmp_path})"
    )


def test_other_errors_pass_unchanged(tmp_path):
    with pytest.raises(ConnectionResetError), clear_output_errors(tmp_path):
        raise ConnectionResetError(errno.ECONNRESET, "reset")


def test_metrics_are_appended_a_line_each(tmp_path):
    append_metrics(tmp_path, {"step": 1})
    append_metrics(tmp_path, {"step": 2})
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        1,
        2,
    ]
