"""How a command shows what goes on: on stderr, since stdout is for the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finetune.progress import Progress


def progress_for(quiet: bool) -> Progress:
    """A bar on a terminal, lines elsewhere, nothing where it is to be quiet."""
    from rich.console import Console

    from finetune.progress import BarProgress, LineProgress, Progress

    console = Console(stderr=True)
    if quiet:
        return Progress()
    return BarProgress(console) if console.is_terminal else LineProgress(console)
