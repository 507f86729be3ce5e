"""What a training on 1 to 1,024 workers sends and waits for, by arithmetic alone: the tables of docs/scale.md.

Sites, channels and parameters are those of the real networks (finetune/backbones/facts.json). What a step sums up is
counted off its graph by scripts/measure_scale.py: two sums a site that follows the batch, one of two numbers a channel
on the way forward and one of their gradients on the way back, and one of all gradients. A ring of N workers (Patarasuk
& Yuan 2009) sends 2 (N - 1) / N of the bytes from each, in 2 (N - 1) rounds that wait for each other.

    python scripts/scale_arithmetic.py
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from finetune.backbones.facts import facts

NETWORKS = ("ResNet50", "MobileNetV2", "EfficientNetB0", "EfficientNetV2B0")
WORKERS = (1, 2, 4, 8, 16, 64, 256, 1024)
SUMS_A_SITE, NUMBERS_A_SUM = 2, 2
LINKS = {"10 Gbit/s, 50 us": (10e9 / 8, 50e-6), "100 Gbit/s, 5 us": (100e9 / 8, 5e-6)}
"""Bytes and seconds: what a link carries in a second, and how long a message is on its way."""


@dataclass(frozen=True)
class Network:
    """A backbone without its top."""

    name: str
    sites: int
    channels: int
    parameters: int

    @property
    def gradients(self) -> int:
        """Bytes: of all weights but the running statistics, float32."""
        return 4 * (self.parameters - 2 * self.channels)

    @property
    def synchronised(self) -> int:
        """Bytes that the sites sum up in a step, float32."""
        return 4 * SUMS_A_SITE * NUMBERS_A_SUM * self.channels

    @property
    def moments(self) -> int:
        """Bytes of a count, and of a mean and M2 for each channel, of all sites; float64."""
        return 8 * (self.sites + 2 * self.channels)

    def checkpoint(self, slots: int) -> int:
        """Bytes at most: the weights now, at the start and in the best epoch, and so many slots of the optimizer."""
        return 3 * 4 * self.parameters + slots * self.gradients


def networks() -> list[Network]:
    known = facts()["keras_applications"]
    return [Network(n, *(known[n][key] for key in ("sites", "channels", "parameters"))) for n in NETWORKS]


def sent(size: int, workers: int) -> float:
    """Bytes that one worker of a ring sends to sum up `size` bytes."""
    return 2 * (workers - 1) / workers * size


def seconds(size: int, sums: int, workers: int, link: tuple[float, float]) -> float:
    """For `sums` sums of `size` bytes together, one after the other."""
    speed, latency = link
    return sent(size, workers) / speed + sums * 2 * (workers - 1) * latency


def table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> None:
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def mega(size: float) -> str:
    return f"{size / 1e6:,.2f}" if size < 10e6 else f"{size / 1e6:,.0f}"


def duration(time: float) -> str:
    return f"{time * 1e3:,.1f} ms" if time < 1 else f"{time:,.1f} s"


def main() -> None:
    found = networks()
    table(
        ("network", "sites", "channels", "sums of the sites", "their MB", "MB of gradients", "share"),
        (
            (
                n.name,
                f"{n.sites}",
                f"{n.channels:,}",
                f"{SUMS_A_SITE * n.sites}",
                mega(n.synchronised),
                mega(n.gradients),
                f"{n.synchronised / n.gradients:.1%}",
            )
            for n in found
        ),
    )
    resnet = found[0]
    table(
        ("workers", "MB sent by each: sites", "gradients", "rounds in a row: sites"),
        (
            (
                f"{n:,}",
                mega(sent(resnet.synchronised, n)),
                mega(sent(resnet.gradients, n)),
                f"{SUMS_A_SITE * resnet.sites * 2 * (n - 1):,}",
            )
            for n in WORKERS
        ),
    )
    table(
        ("workers", *(f"{what}, {link}" for link in LINKS for what in ("sites", "gradients"))),
        (
            (
                f"{n:,}",
                *(
                    duration(seconds(size, sums, n, link))
                    for link in LINKS.values()
                    for size, sums in (
                        (resnet.synchronised, SUMS_A_SITE * resnet.sites),
                        (resnet.gradients, 1),
                    )
                ),
            )
            for n in WORKERS
        ),
    )
    table(
        (
            "network",
            "moments of a share, MB",
            "of 1,024 shares, MB",
            "checkpoint with SGD, MB",
            "with Adam, MB",
        ),
        (
            (n.name, mega(n.moments), mega(1024 * n.moments), mega(n.checkpoint(1)), mega(n.checkpoint(2)))
            for n in found
        ),
    )


if __name__ == "__main__":
    main()
