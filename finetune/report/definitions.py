"""What the figures of a report mean, in one sentence each."""

from __future__ import annotations

from finetune.result import Evaluation

METRICS = {
    "accuracy": "Share of the test images whose most probable class is the true one.",
    "balanced_accuracy": "Mean over the classes of that share: a rare class counts as much as a common one.",
    "cross_entropy": "Mean of -ln p, in nats, with p the probability given to the true class; 0 is perfect.",
    "expected_calibration_error": (
        "Mean gap between confidence and accuracy over 15 bins of confidence, weighted by their images; "
        "0 means that of the answers given with 80 % confidence 80 % are right."
    ),
    "macro_f1": "Mean over the classes of the harmonic mean of precision and recall; a rare class counts as much.",
    "roc_auc": (
        "Of an image of a class and one of another, how often the first has the higher probability of that class; "
        "mean over the classes, 0.5 is guessing, whatever their sizes."
    ),
    "average_precision": (
        "Precision at every image of a class, in the order of its probability, averaged; mean over the classes. "
        "Guessing has the share of the class, so that it tells more than the ROC where a class is rare."
    ),
}

MULTI_LABEL_METRICS = {
    "accuracy": "Share of the answers that are right: one for each class and image, yes above one half.",
    "exact_match": "Share of the test images of which all answers are right.",
    "balanced_accuracy": "Mean over the classes of the mean of two shares: found where shown, not claimed where not.",
    "cross_entropy": (
        "Mean of -ln p over images and classes, in nats, with p the probability given to what is so; 0 is perfect."
    ),
    "expected_calibration_error": (
        "Mean gap between confidence and accuracy of the answers over 15 bins of confidence, weighted by their number."
    ),
    "macro_f1": METRICS["macro_f1"],
    "micro_f1": "Harmonic mean of precision and recall over all answers together; common classes count more.",
    "roc_auc": (
        "Of an image that shows a class and one that does not, how often the first has the higher probability of it; "
        "mean over the classes, 0.5 is guessing."
    ),
    "average_precision": METRICS["average_precision"],
}
"""Where an image shows any number of classes."""


def definitions_of(evaluation: Evaluation) -> dict[str, str]:
    """Of its metrics, by name."""
    return MULTI_LABEL_METRICS if evaluation.by_class else METRICS


SHIFT = {
    "mean": "Distance between the two running means, in standard deviations of the pretrained statistics.",
    "log_std": "|ln| of the ratio of the two standard deviations; 0.69 is a factor of two either way.",
    "kl": "Symmetric Kullback-Leibler divergence of the two Gaussians, in nats.",
}
"""Each is a mean over the channels of one site."""
