"""Look at a model in service, and recalibrate it behind the gate where it has drifted: for cron.

Nothing is measured anew while the drift is within --threshold, and nothing is published that the gate refuses.
A model in MLflow gets a new version, which its alias serves from then on with --promote.

    uv run python scripts/recalibrate.py models:/shirts@champion --images /data/today --threshold 0.3 --promote

A line of a crontab that does so every night stands in the README; cron mails what it prints.

Exit codes: 0 within the threshold, or recalibrated and published; 1 failure; 2 bad input, or the store is away;
4 the gate refused, and what was served is served on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import finetune
from finetune.drift_series import drift as drift_with_series
from finetune.errors import FinetuneError
from finetune.registered_run import recalibrate as recalibrate_registered
from finetune.tracking.address import is_address


def main() -> int:
    given = arguments()
    images = finetune.ImageSource(folder=given.images)
    try:
        return attend(given, images)
    except FinetuneError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def attend(given: argparse.Namespace, images: finetune.ImageSource) -> int:
    """Watch, and recalibrate where that says so. Raises FinetuneError."""
    settings = finetune.Settings(samples=given.samples, labelled=given.labelled)
    logged = is_address(given.model) or given.tracking_uri is not None
    seen = (
        drift_with_series(given.model, images, settings, store=given.tracking_uri)
        if logged
        else finetune.drift(given.model, images, settings)
    )
    said = f"{given.model}: {seen.overall:.3f} sd from its {seen.against} statistics on {seen.images} images"
    if seen.overall <= given.threshold:
        print(f"{said}, within {given.threshold:g}")
        return 0
    print(f"{said}, above {given.threshold:g}: {published(given, images, settings)}")
    return 0


def published(given: argparse.Namespace, images: finetune.ImageSource, settings: finetune.Settings) -> str:
    """Recalibrate; what was published, in words."""
    if not is_address(given.model):
        return str(finetune.recalibrate(given.model, images, given.out, settings).version)
    store, promote = given.tracking_uri, given.promote
    made = recalibrate_registered(given.model, images, settings, store=store, promote=promote)
    return f"{made.address}, served as {made.alias}" if made.alias else f"{made.address}, not promoted"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="as for finetune recalibrate")
    parser.add_argument("--images", type=Path, required=True, help="folder with pictures of today")
    parser.add_argument("--threshold", type=float, default=0.3, help="drift in sd that is let be")
    parser.add_argument("--samples", type=int, default=512, help="images, at most")
    parser.add_argument("--labelled", action="store_true", help="the pictures lie in folders by class")
    parser.add_argument("--out", type=Path, help="of a file: folder of versions")
    parser.add_argument(
        "--promote", action="store_true", help="in MLflow: let the alias serve the new version"
    )
    parser.add_argument("--tracking-uri", help="MLflow store")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
