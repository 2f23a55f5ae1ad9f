"""How metrics are called on a terminal and in a picture."""

METRIC_LABELS = {"accuracy": "accuracy", "r2": "R²", "micro_f1": "micro F1", "entity_f1": "entity F1"}

TRIVIAL = {
    "classification": "majority class",
    "regression": "mean",
    "multilabel": "labels of most rows",
    "tags": "commonest tag",
    "entities": "commonest tag",
}
"""What the trivial baseline answers, by task."""
