"""How a run ended, kept in its folder: finished, failed, or broken off and to be gone on with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from finetune import checkpoint
from finetune.errors import DivergedError, Interrupted, ProofError, WorkerLostError
from finetune.interruption import stays_an_interruption
from finetune.progress import Progress
from finetune.run_state import RunState, write_state


@contextmanager
def outcome_kept(folder: Path, state: RunState, progress: Progress) -> Iterator[Callable[[RunState], None]]:
    """Leave in the folder whether the run inside the block is finished, failed, or can be gone on with.

    Yields what is to be told about it on the way.
    """
    known = [state]

    def state_is(now: RunState) -> None:
        known[:] = [now]
        write_state(folder, now)

    go_on = f"go on with: finetune run --resume {folder}"
    try:
        with stays_an_interruption():
            yield state_is
    except (DivergedError, ProofError) as error:
        state_is(replace(known[0], status="failed", reason=str(error).split("; ")[0]))
        checkpoint.clear(folder)
        raise
    except KeyboardInterrupt as error:
        raise Interrupted(f"interrupted; {go_on}") from error
    except WorkerLostError:
        # it says how to go on itself
        raise
    except BaseException:
        progress.note(f"what was trained is kept; {go_on}")
        raise
    state_is(replace(known[0], status="finished"))
    checkpoint.clear(folder)
