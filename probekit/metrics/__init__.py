"""What a prediction is worth: every column of the table, and intervals for the two that choose."""

from __future__ import annotations

from probekit.metrics.bootstrap import bootstrap_draws, bootstrap_terms, interval
from probekit.metrics.by_class import rows_by_class
from probekit.metrics.classification import classification_metrics
from probekit.metrics.entities import (
    EntityRow,
    entity_counts,
    entity_f1,
    entity_precision,
    entity_recall,
    entity_spans,
    entity_table,
)
from probekit.metrics.multilabel import multilabel_metrics
from probekit.metrics.paired import PairedDifference, differences_from, holm, paired_difference
from probekit.metrics.regression import regression_metrics
from probekit.metrics.score import SCORES, Score
from probekit.metrics.tag_scheme import TagScheme, looks_like_entities, name_types, scheme_of, to_iob2
from probekit.metrics.viterbi import best_tags

__all__ = [
    "SCORES",
    "EntityRow",
    "PairedDifference",
    "Score",
    "TagScheme",
    "best_tags",
    "bootstrap_draws",
    "bootstrap_terms",
    "classification_metrics",
    "differences_from",
    "entity_counts",
    "entity_f1",
    "entity_precision",
    "entity_recall",
    "entity_spans",
    "entity_table",
    "holm",
    "interval",
    "looks_like_entities",
    "multilabel_metrics",
    "name_types",
    "paired_difference",
    "regression_metrics",
    "rows_by_class",
    "scheme_of",
    "to_iob2",
]
