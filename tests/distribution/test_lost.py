"""A worker that is lost is one line; how long it takes is measured by scripts/measure_worker_loss.py."""

import pytest
import tensorflow as tf

from finetune.distribution.cluster import Cluster
from finetune.distribution.lost import again, loss_in_words
from finetune.distribution.replicas import ALONE, Replicas
from finetune.errors import WorkerLostError
from finetune.progress import Progress
from finetune.run_outcome import outcome_kept
from finetune.run_state import RunState, resumable_state

SECOND = Replicas(count=3, cluster=Cluster(("one:1", "two:1", "three:1"), 1))
GONE = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError)


@pytest.mark.parametrize("kind", GONE, ids=lambda kind: kind.__name__)
def test_a_worker_that_does_not_answer_is_one_line_that_says_how_to_go_on(kind, tmp_path):
    with pytest.raises(WorkerLostError) as lost, loss_in_words(SECOND, again(tmp_path / "small-1")):
        raise kind(None, None, "Connection reset by peer\nand forty lines more")
    assert lost.value.exit_code == 1
    assert str(lost.value) == (
        "worker 2 of 3: another worker ended or cannot be reached, and none can go on alone; what was trained is kept; "
        f"start all workers again with: finetune run --resume {tmp_path}/small-1"
    )


def test_in_one_process_it_is_what_it_is():
    with pytest.raises(tf.errors.UnavailableError), loss_in_words(ALONE, ""):
        raise tf.errors.UnavailableError(None, None, "a remote file system")


def test_other_errors_of_a_worker_are_its_own():
    with pytest.raises(tf.errors.InvalidArgumentError), loss_in_words(SECOND, ""):
        raise tf.errors.InvalidArgumentError(None, None, "shapes")


class Listening(Progress):
    def __init__(self):
        self.notes = []

    def note(self, words):
        self.notes.append(words)


def lost_in_the_middle(folder, progress):
    with outcome_kept(folder, RunState("digest"), progress) as state_is:
        state_is(RunState("digest"))
        raise WorkerLostError("lost")


def test_the_run_can_be_gone_on_with_and_the_line_is_said_once(tmp_path):
    progress = Listening()
    with pytest.raises(WorkerLostError):
        lost_in_the_middle(tmp_path, progress)
    assert resumable_state(tmp_path).status == "begun"
    assert progress.notes == []
