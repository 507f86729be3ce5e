"""A version is there whole or not at all, whatever happens to who builds it."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import finetune
from finetune.errors import OutputError
from finetune.recalibration.building import PREFIX
from finetune.recalibration.publish import publish
from finetune.recalibration.versions import numbers
from tests.recalibration.places import content, one_file, saved_model, tree

KILLED_AT_EVERY_CALL = """
import os, signal, sys
from pathlib import Path
from finetune.recalibration.publish import publish
from tests.recalibration.places import saved_model

def deadly(where, name, at):
    call = getattr(where, name)
    def counted(*given, **named):
        global calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*given, **named)
    setattr(where, name, counted)

for at in range(1, 1000):
    place = Path(sys.argv[1], str(at), "cameras")
    publish(saved_model(1), place)
    calls, child = 0, os.fork()
    if child == 0:
        for name in ("mkdir", "open", "fsync", "close", "rename", "rmdir", "unlink", "scandir"):
            deadly(os, name, at)
        deadly(Path, "write_bytes", at)
        publish(saved_model(2), place)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


def leftovers(place):
    return [entry for entry in place.iterdir() if entry.name.startswith(PREFIX)]


def test_versions_are_numbered_from_1_and_get_the_next_number(tmp_path):
    place = tmp_path / "models" / "cameras"
    assert [publish(saved_model(n), place).name for n in (1, 2)] == ["1", "2"]
    assert [content(place / "1"), content(place / "2")] == [1, 2]
    assert not leftovers(place)


def test_numbers_are_never_used_again_nor_taken_from_files(tmp_path):
    (tmp_path / "0007").mkdir()
    (tmp_path / "9").touch()
    assert publish(saved_model(1), tmp_path).name == "10"


def test_a_build_that_fails_leaves_nothing_and_touches_nothing(tmp_path):
    publish(saved_model(1), tmp_path)
    before = tree(tmp_path)

    def fails(folder):
        saved_model(2)(folder)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        publish(fails, tmp_path)
    assert tree(tmp_path) == before
    assert not leftovers(tmp_path)


@pytest.fixture
def killed(tmp_path):
    """A place for every call into the system at which a process was killed that published version 2 there, and one
    where it came through. It is forked by a process of its own: this one may have threads."""
    command = [sys.executable, "-c", KILLED_AT_EVERY_CALL, str(tmp_path)]
    subprocess.run(command, check=True, cwd=Path(finetune.__file__).parents[1])
    return [folder / "cameras" for folder in sorted(tmp_path.iterdir(), key=lambda folder: int(folder.name))]


def test_killed_at_any_moment_it_leaves_the_old_state_or_the_whole_new_version(killed):
    assert len(killed) > 20
    states = []
    for place in killed:
        assert content(place / "1") == 1
        states.append(numbers(place))
        if states[-1] == [1, 2]:
            assert content(place / "2") == 2
    first = states.index([1, 2])
    assert 20 < first < len(states)
    assert states == [[1]] * first + [[1, 2]] * (len(states) - first)


def test_the_next_build_removes_what_a_killed_one_left(killed):
    assert any(leftovers(place) for place in killed)
    for place in killed:
        expected = str(numbers(place)[-1] + 1)
        assert publish(saved_model(3), place).name == expected
        assert not leftovers(place)
        assert content(place / expected) == 3


def test_two_builds_at_once_get_a_number_each_and_leave_each_other_alone(tmp_path):
    both_built = threading.Barrier(4, timeout=30)
    made = {}

    def one(number):
        def build(folder):
            saved_model(number)(folder)
            both_built.wait()

        made[number] = publish(build, tmp_path)

    builders = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert sorted(version.name for version in made.values()) == ["1", "2", "3", "4"]
    assert all(content(version) == number for number, version in made.items())


def test_a_number_that_another_build_takes_at_the_last_moment_is_left_to_it(tmp_path, monkeypatch):
    rename, taken = os.rename, []

    def late(source, destination):
        if not taken:
            taken.append(destination)
            saved_model(8)(destination)
        rename(source, destination)

    monkeypatch.setattr(os, "rename", late)
    assert publish(saved_model(1), tmp_path).name == "2"
    assert [content(tmp_path / "1"), content(tmp_path / "2")] == [8, 1]


def test_everything_is_on_disk_before_it_appears(tmp_path, monkeypatch):
    events = []
    fsync, rename = os.fsync, os.rename

    def noted(descriptor):
        events.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "rename", lambda *paths: (events.append("RENAME"), rename(*paths)))
    publish(one_file(1), tmp_path)
    assert events == ["model.onnx", "version", "RENAME", tmp_path.name]


@pytest.mark.parametrize("name", ["model.keras", "model.onnx"])
def test_a_file_name_is_no_place(tmp_path, name):
    with pytest.raises(OutputError, match=r"expected a folder for numbered versions.* give .*model, "):
        publish(one_file(1), tmp_path / name)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="expected a folder"):
        publish(one_file(1), tmp_path / "file")


def test_a_full_disk_is_said_in_one_line(tmp_path):
    def full(folder):
        raise OSError(errno.ENOSPC, "whatever the system says", str(folder))

    with pytest.raises(OutputError, match=r"no space left on the device; nothing was published$"):
        publish(full, tmp_path)
    assert not list(tmp_path.iterdir())
