"""What can go wrong, by who has to act. Every error says what was found, what was expected and what to do.

FinetuneError            exit code 1
+-- InputError           exit code 2   the recipe, the data, the weights or an argument
|   +-- RecipeError                    a recipe file, with file, line and key
|   +-- DataError                      images, labels, splits
|   +-- WeightsError                   pretrained weights that do not fit
|   +-- ModelError                     a deployed model that cannot be read or recalibrated
|   +-- OutputError                    a place that cannot be written
+-- GateError            exit code 4   a recalibrated model was not published
+-- ProofError           exit code 5   the policy did not do what it promised
+-- DivergedError        exit code 6   the training left the finite numbers
+-- WorkerLostError                    one of several processes of a training went away

Interrupted is a KeyboardInterrupt, exit code 130.
"""

from __future__ import annotations

from collections.abc import Iterable


class FinetuneError(Exception):
    """Anything the toolkit reports in words instead of a traceback."""

    exit_code = 1


class InputError(FinetuneError):
    """Something the person gave cannot be used; carries every problem found, not only the first."""

    exit_code = 2

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class Interrupted(KeyboardInterrupt):
    """A person or the system ended the work; says how to go on."""


class RecipeError(InputError):
    """A recipe file that cannot be read as a recipe."""


class DataError(InputError):
    """Data that is missing, damaged or does not fit the recipe."""


class WeightsError(InputError):
    """Pretrained weights that are missing or do not fit the architecture or the classes."""


class ModelError(InputError):
    """A deployed model that is damaged, or whose running statistics cannot be measured anew; says what can be done."""


class OutputError(InputError):
    """A file or folder that cannot be written."""


class GateError(FinetuneError):
    """The gate refused to publish a recalibrated model; nothing was changed."""

    exit_code = 4


class ProofError(FinetuneError):
    """The checks after a run found that the BN policy did not hold; nothing is registered."""

    exit_code = 5


class DivergedError(FinetuneError):
    """The loss left the finite numbers, or never came back to where it started."""

    exit_code = 6


class WorkerLostError(FinetuneError):
    """One of several processes that train together ended; all have to be started again."""


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line; its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
