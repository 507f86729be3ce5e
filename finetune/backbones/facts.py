"""What is known of every architecture without building it (scripts/measure_backbones.py writes facts.json)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def facts() -> dict[str, dict[str, dict[str, Any]]]:
    """By source and name: BN sites, channels in all of them, momentum, epsilon, parameters without a top, side in px,
    preprocessing (RGB 0..255 to what the network takes), where weights come from. None: only a server knows."""
    read: dict[str, dict[str, dict[str, Any]]] = json.loads(
        Path(__file__).with_name("facts.json").read_text("utf-8")
    )
    return read
