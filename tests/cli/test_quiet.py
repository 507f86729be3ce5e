"""What is imported stays, and no garbage collection looks at it."""

import gc

from finetune.cli.quiet import _left_alone


def test_what_is_imported_is_left_out_of_garbage_collections():
    before = gc.get_freeze_count()
    with _left_alone():
        assert not gc.isenabled()
        imported = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(imported)
