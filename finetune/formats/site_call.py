"""One place where a deployed network normalises with running statistics."""

from __future__ import annotations

from dataclasses import dataclass

from finetune.errors import ModelError


@dataclass(frozen=True)
class SiteCall:
    """inputs: the tensor that is normalised. mean, variance: tensors of the variables. axes: those of the channels.

    axes are counted from the end where negative; more than one for statistics of their own at each position,
    none where there is a single channel. operations: those that form the normalisation, first to last.
    """

    inputs: str
    mean: str
    variance: str
    epsilon: float
    channels: int
    axes: tuple[int, ...]
    operations: tuple[str, ...]

    @property
    def axis(self) -> int | None:
        """The axis of the channels; None where the last few together are, or none is: inputs are then (-1, channels).

        Raises ModelError where several are and something lies between or behind them.
        """
        if len(self.axes) == 1:
            return self.axes[0]
        if self.axes and self.axes != tuple(range(-len(self.axes), 0)):
            raise ModelError(
                f"{self.operations[-1]}: running statistics along axes {self.axes} cannot be measured; "
                "only those along one axis or along the last ones can"
            )
        return None
