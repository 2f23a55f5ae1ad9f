"""What a prediction is worth: every column of the table, and intervals for the two that choose."""

from __future__ import annotations

from probekit.metrics.bootstrap import bootstrap_draws, interval
from probekit.metrics.classification import classification_metrics
from probekit.metrics.paired import PairedDifference, differences_from, holm, paired_difference
from probekit.metrics.regression import regression_metrics
from probekit.metrics.score import SCORES, Score

__all__ = [
    "CLASSIFICATION_METRICS",
    "REGRESSION_METRICS",
    "SCORES",
    "PairedDifference",
    "Score",
    "bootstrap_draws",
    "classification_metrics",
    "differences_from",
    "holm",
    "interval",
    "paired_difference",
    "regression_metrics",
]

CLASSIFICATION_METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "mcc", "log_loss", "auroc")
REGRESSION_METRICS = ("r2", "rmse", "mae", "pearson", "spearman")
