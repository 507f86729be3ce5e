"""What a person sees while a run goes on: a bar with time left on a terminal, one line an epoch elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any


class Progress:
    """Says nothing; base of what does. `stage` opens a stage, `batch` and `epoch` follow, `note` is a sentence."""

    def phase(self, words: str) -> None:
        """What the run turns to now."""

    def stage(
        self, title: str, epochs: int, steps: int, batch_size: int, done: int = 0, step: int = 0
    ) -> None:
        """A stage of `epochs` epochs of `steps` batches begins, or goes on after the first `done` of them and `step`
        batches of the next."""

    def rebatched(self, steps: int, batch_size: int) -> None:
        """From here on an epoch of the stage has `steps` batches of this size."""

    def batch(self, step: int, loss: float, accuracy: float) -> None:
        """One batch of the current epoch is done; loss and accuracy are means over the epoch so far."""

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """One epoch is done."""

    def share(self, done: float) -> None:
        """So much of what the last phase named is done, from 0 to 1."""

    def note(self, words: str) -> None:
        """Something the person should know."""

    def close(self) -> None:
        """The stage ended, well or not."""


class LineProgress(Progress):
    """One line a phase and an epoch, for logs. `console` is a rich Console."""

    def __init__(self, console: Any) -> None:
        self.console = console
        self.epochs = self.steps = self.batch_size = self.after = 0
        self.earlier = self.begun = self.first = self.latest = 0.0

    def phase(self, words: str) -> None:
        self.console.print(words, highlight=False, markup=False, soft_wrap=True)

    def stage(
        self, title: str, epochs: int, steps: int, batch_size: int, done: int = 0, step: int = 0
    ) -> None:
        self.phase(title)
        self.epochs, self.steps, self.batch_size, self.after = epochs, steps, batch_size, step
        # the validation is a part of an epoch, too
        self.earlier = done + step / (steps + 1)
        self.begun = self.first = self.latest = time.perf_counter()

    def rebatched(self, steps: int, batch_size: int) -> None:
        self.steps, self.batch_size = steps, batch_size

    def batch(self, step: int, loss: float, accuracy: float) -> None:
        self.latest = time.perf_counter()
        if step == self.after + 1:
            self.first = self.latest

    def rate(self, step: int) -> float:
        """Images a second since the first batch of the epoch in this sitting, which compiles the network."""
        return max(step - self.after - 1, 0) * self.batch_size / max(self.latest - self.first, 1e-9)

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        left = (time.perf_counter() - self.begun) / (epoch - self.earlier) * (self.epochs - epoch)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        self.phase(
            f"  epoch {epoch}/{self.epochs}  {shown}  {self.rate(self.steps):.0f} images/s  {_clock(left)} left"
        )
        self.after = 0

    def note(self, words: str) -> None:
        self.phase(f"note: {words}")


class BarProgress(LineProgress):
    """As `LineProgress`, and a bar over the batches of the running epoch."""

    REFRESH_SECONDS = 0.2

    def __init__(self, console: Any) -> None:
        super().__init__(console)
        self.bar: Any = None
        self.task: Any = None
        self.done = 0
        self.shown = 0.0

    def stage(
        self, title: str, epochs: int, steps: int, batch_size: int, done: int = 0, step: int = 0
    ) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        super().stage(title, epochs, steps, batch_size, done, step)
        self.close()
        self.done = done
        self.bar = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[measures]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self.console,
            transient=True,
            auto_refresh=False,
        )
        self.task = self.bar.add_task(f"epoch {done + 1}", total=epochs, completed=self.earlier, measures="")
        self.bar.start()

    def batch(self, step: int, loss: float, accuracy: float) -> None:
        super().batch(step, loss, accuracy)
        if self.latest - self.shown < self.REFRESH_SECONDS:
            return
        self.shown = self.latest
        self.bar.update(
            self.task,
            completed=self.done + step / self.steps,
            description=f"epoch {self.done + 1}/{self.epochs}",
            measures=f"loss {loss:.3f}  accuracy {accuracy:.3f}  {self.rate(step):.0f} images/s",
            refresh=True,
        )

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self.done = epoch
        super().epoch(epoch, metrics)

    def share(self, done: float) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        if self.bar is None:
            left = (TimeRemainingColumn(), TextColumn("left"))
            self.bar = Progress(
                TextColumn(" "), BarColumn(bar_width=24), *left, console=self.console, transient=True
            )
            self.task = self.bar.add_task("", total=1.0)
            self.bar.start()
        self.bar.update(self.task, completed=done)
        if done >= 1.0:
            self.close()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
