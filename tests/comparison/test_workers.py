"""Which process trains which cell: one that has traced its graphs, where there is one."""

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from finetune.comparison.graph_kind import graph_kind
from finetune.comparison.workers import suiting
from finetune.recipe_file import load_recipe

KINDS = st.sampled_from("abcd")


@given(st.lists(KINDS, min_size=1), st.sets(KINDS), st.sets(KINDS))
def test_a_process_takes_what_it_has_traced_then_what_nobody_has_then_what_most_wait_for(
    waiting, traced, others
):
    kinds, elsewhere = {str(number): kind for number, kind in enumerate(waiting)}, others - traced
    taken = kinds[suiting(kinds, traced, elsewhere)]
    if traced & {*waiting}:
        assert taken in traced
    elif {*waiting} - elsewhere:
        assert taken not in elsewhere
    if not traced & {*waiting}:
        equal = [kind for kind in waiting if (kind in elsewhere) == (taken in elsewhere)]
        assert waiting.count(taken) == max(map(equal.count, equal))


def test_two_processes_and_four_kinds_of_equal_size_trace_each_of_them_once():
    kinds = {f"{kind}{number}": kind for kind in "abcd" for number in range(4)}
    traced = [set(), set()]
    while kinds:
        for own, other in (traced, traced[::-1]):
            own.add(kinds.pop(suiting(kinds, own, other - own)))
    assert sorted(map(sorted, traced)) == [["a", "c"], ["b", "d"]]


def test_cells_of_one_kind_differ_in_seed_camera_and_rate_only(path):
    kind = graph_kind(load_recipe(path))
    alike = ["seed=3", "data.shift={kind: fog, severity: 1}", "stages.1.learning_rate=0.5", "name=other"]
    assert all(graph_kind(load_recipe(path, [change])) == kind for change in alike)
    other = ["batchnorm.momentum=0.5", "data.batch_size=8", "stages.1.epochs=3"]
    assert len({kind, *(graph_kind(load_recipe(path, [change])) for change in other)}) == 4


PARENT = """
import time
from multiprocessing import get_context
from finetune.comparison.workers import end_with_parent

def work():
    end_with_parent()
    print("at work", flush=True)
    time.sleep(60)
    print("done", flush=True)

if __name__ == "__main__":
    get_context("spawn").Process(target=work).start()
"""


def test_a_process_ends_with_the_one_that_began_it_though_that_is_killed(tmp_path):
    program = tmp_path / "parent.py"
    program.write_text(PARENT)
    with subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "at work\n"
        parent.kill()
        # nobody holds the pipe any more when this returns
        assert parent.stdout.read() == ""
