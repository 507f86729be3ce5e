"""A finished run made up for tests: plausible figures, no training."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from finetune.result import Check, EpochRecord, Evaluation, RunResult, SiteRecord

CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

CHECKS = (
    Check("every BN site is reached by an image", True, "53 sites found, 53 reached"),
    Check("running statistics are fixed", True, "0 of 106 arrays moved, bit for bit"),
    Check("gamma and beta are fixed", True, "0 of 106 arrays moved, bit for bit"),
    Check("an image does not depend on its batch-mates", True, "largest difference 3.6e-07"),
    Check("statistics are finite and no variance is negative", True, "106 arrays, smallest variance 2.1e-03"),
)


def sample_result(
    folder: Path,
    policy: str = "freeze",
    accuracy: float = 0.77,
    shift: float = 0.0,
    class_names: tuple[str, ...] = CLOTHES,
    checks: tuple[Check, ...] = CHECKS,
    seed: int = 0,
    sites: int = 53,
) -> RunResult:
    """`shift`: how many standard deviations the first site's running mean moved; it fades with depth."""
    draw = np.random.default_rng(seed)
    confusion = sample_confusion(draw, len(class_names), accuracy)
    return RunResult(
        name=f"resnet_{policy}-{seed + 1}",
        folder=folder,
        recipe=sample_recipe(policy, seed),
        policy=policy,
        class_names=class_names,
        dataset={
            "train": "fashion_shift test images 0 to 999, fog 3",
            "validation": "fashion_shift test images 1000 to 1999, fog 3",
            "test": "fashion_shift test images 4000 to 9999, fog 3",
            "calibration": "fashion_shift test images 2000 to 2999, fog 3",
        },
        epochs=sample_epochs(draw, accuracy, shift),
        sites=tuple(sample_site(draw, index, shift) for index in range(sites)),
        test=Evaluation(
            {
                "accuracy": float(np.trace(confusion) / confusion.sum()),
                "balanced_accuracy": float(
                    np.mean(np.diag(confusion) / np.maximum(confusion.sum(axis=1), 1))
                ),
                "cross_entropy": 1.9 * (1 - accuracy) + 0.2,
                "expected_calibration_error": 0.031,
                "macro_f1": accuracy - 0.01,
                "roc_auc": 0.97,
                "average_precision": 0.9,
            },
            tuple(tuple(int(images) for images in row) for row in confusion),
            int(confusion.sum()),
        ),
        checks=checks,
        notes=("The learning rate was warmed up over the first 10 % of each stage.",),
        seconds={"load": 3.2, "train": 61.8, "evaluate": 4.4, "export": 9.1},
        provenance={
            "versions": {"finetune": "0.1.0", "keras": "3.15.1", "tensorflow": "2.21.0"},
            "seed": seed,
        },
    )


def sample_recipe(policy: str, seed: int) -> dict[str, object]:
    return {
        "name": f"resnet_{policy}",
        "seed": seed,
        "backbone": {"source": "bundled", "name": "resnet50_quarter_fashion"},
        "data": {"source": "fashion_shift", "batch_size": 32, "shift": {"kind": "fog", "severity": 3}},
        "head": {"kind": "linear", "dropout": 0.0},
        "batchnorm": {"policy": policy},
        "stages": [
            {"train": "head", "epochs": 2, "learning_rate": 0.01},
            {"train": "everything", "epochs": 6, "learning_rate": 0.003},
        ],
    }


def sample_epochs(draw: np.random.Generator, accuracy: float, shift: float) -> tuple[EpochRecord, ...]:
    records = []
    for step in range(1, 9):
        reached = accuracy * (1 - 0.7 * 0.6**step)
        train = reached + 0.02 * step / 8 + draw.normal(0, 0.004)
        metrics = {
            "train/loss": 2.1 * (1 - train) + 0.1,
            "train/accuracy": train,
            "validation/loss": 2.1 * (1 - reached) + 0.2 + draw.normal(0, 0.02),
            "validation/accuracy": reached + draw.normal(0, 0.008),
            "learning_rate": 0.01 if step <= 2 else 0.003 * (9 - step) / 6,
            "bn_shift/mean": 0.4 * shift * (1 - 0.5**step),
            "bn_shift/log_std": 0.2 * shift * (1 - 0.5**step),
            "bn_shift/kl": 0.3 * shift**2 * (1 - 0.5**step),
        }
        stage, epoch = (1, step) if step <= 2 else (2, step - 2)
        records.append(EpochRecord(stage, epoch, step, metrics))
    return tuple(records)


def sample_site(draw: np.random.Generator, index: int, shift: float) -> SiteRecord:
    moved = shift * (0.9**index + 0.15) * draw.uniform(0.6, 1.4)
    block, place = divmod(index, 3)
    size = (28, 14, 7, 4)[min(index // 14, 3)]
    return SiteRecord(
        index=index,
        path=f"res_net_backbone/v2_stack_{min(block // 4, 3)}_block{block % 4 + 1}_{place + 1}_bn",
        channels=(16, 32, 64, 128)[min(index // 14, 3)],
        momentum=0.9,
        epsilon=1.001e-5,
        positions=32 * size * size,
        shift_mean=moved,
        shift_log_std=0.5 * moved,
        shift_kl=0.4 * moved**2,
    )


def sample_confusion(draw: np.random.Generator, classes: int, accuracy: float) -> np.ndarray:
    images = max(600 * 10 // classes, 20)
    wrong = draw.dirichlet(np.full(classes, 0.3), size=classes)
    shares = (1 - accuracy) * wrong + accuracy * np.eye(classes)
    return np.stack([draw.multinomial(images, row / row.sum()) for row in shares])
