"""What the figures of a report mean, in one sentence each."""

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

SHIFT = {
    "mean": "Distance between the two running means, in standard deviations of the pretrained statistics.",
    "log_std": "|ln| of the ratio of the two standard deviations; 0.69 is a factor of two either way.",
    "kl": "Symmetric Kullback-Leibler divergence of the two Gaussians, in nats.",
}
"""Each is a mean over the channels of one site."""
