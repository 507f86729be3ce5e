"""What the figures of a report mean, in one sentence each."""

METRICS = {
    "accuracy": "Share of the test images whose most probable class is the true one.",
    "balanced_accuracy": "Mean over the classes of that share: a rare class counts as much as a common one.",
    "cross_entropy": "Mean of -ln p, in nats, with p the probability given to the true class; 0 is perfect.",
    "expected_calibration_error": (
        "Mean gap between confidence and accuracy over 15 bins of confidence, weighted by their images; "
        "0 means that of the answers given with 80 % confidence 80 % are right."
    ),
}

SHIFT = {
    "mean": "Distance between the two running means, in standard deviations of the pretrained statistics.",
    "log_std": "|ln| of the ratio of the two standard deviations; 0.69 is a factor of two either way.",
    "kl": "Symmetric Kullback-Leibler divergence of the two Gaussians, in nats.",
}
"""Each is a mean over the channels of one site."""
